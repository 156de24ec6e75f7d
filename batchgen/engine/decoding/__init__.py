"""Logits to answers: sampling, beams, grammars, text."""

from __future__ import annotations
