"""Files that survive a power cut: keys, writes that are all or nothing, the id of a store."""

from __future__ import annotations
