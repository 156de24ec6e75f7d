"""Which sequences compute what, and in which blocks."""

from __future__ import annotations
