"""One shard's way through a worker: claim, feed, finish."""

from __future__ import annotations
