"""HTTP endpoints of other engines: which are allowed, how they are reached, what they serve."""

from __future__ import annotations
