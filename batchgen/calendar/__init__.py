"""Moments, windows and time zones, as users write them."""

from __future__ import annotations
