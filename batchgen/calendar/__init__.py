"""Moments, windows and zones as users write them."""

from __future__ import annotations
