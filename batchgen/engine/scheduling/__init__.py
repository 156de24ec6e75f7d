"""Which sequences compute what in a step, and in which blocks; no torch."""

from __future__ import annotations
