"""The processes that live long: worker, coordinator, finaliser, local stack, local run."""

from __future__ import annotations
