"""Scheduling: the sequences and tokens of each step, and the blocks they use. No torch."""

from __future__ import annotations
