"""Choose which shards are published next: turns, windows, and splits for idle workers."""

from __future__ import annotations
