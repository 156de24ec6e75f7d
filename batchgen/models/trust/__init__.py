"""What comes with a model is checked before it is used."""

from __future__ import annotations
