"""A line becomes a row: what a prompt file may say, checked."""

from __future__ import annotations
