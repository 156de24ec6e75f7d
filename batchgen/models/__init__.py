"""Models pinned by name: a folder, the SHA-256 of its files, no code."""

from __future__ import annotations
