"""A prompt file becomes a stored input: one pass over it, its index, its rows by offset."""

from __future__ import annotations
