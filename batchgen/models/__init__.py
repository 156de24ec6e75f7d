"""Models pinned by name: a folder, the SHA-256 of its files, no code."""

from __future__ import annotations

from batchgen.models.record import ModelRecord
from batchgen.models.registry import Registry

__all__ = ["ModelRecord", "Registry"]
