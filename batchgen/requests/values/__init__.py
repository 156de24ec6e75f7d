"""Checks of single values: JSON, texts, numbers, messages, tools, grammars."""

from __future__ import annotations
