"""Results as files: parts, the dataset, its manifest, card and export."""

from __future__ import annotations
