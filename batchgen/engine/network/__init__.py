"""The model on its device: loading, probe, attention, KV cache."""

from __future__ import annotations
