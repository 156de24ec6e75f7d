"""GGUF files, converted by tables of our own."""

from __future__ import annotations
