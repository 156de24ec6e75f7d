"""GGUF files, read by tables of our own."""

from __future__ import annotations
