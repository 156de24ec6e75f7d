"""Logits become tokens, and tokens become answers."""

from __future__ import annotations
