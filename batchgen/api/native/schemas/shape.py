"""The base of all shapes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """One JSON object of an answer. A field that it does not name is an error in tests."""

    model_config = ConfigDict(extra="forbid")
