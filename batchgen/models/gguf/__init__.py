"""Conversion of GGUF files to transformers folders, by batchgen's own tables."""

from __future__ import annotations
