"""Files that survive: keys, folders, fsync and rename."""

from __future__ import annotations
