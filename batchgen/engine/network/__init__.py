"""The model on its device: loading, attention, KV cache, the probe."""

from __future__ import annotations
