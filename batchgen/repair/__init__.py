"""Files and rows that do not agree: garbage, adoption, invariants."""

from __future__ import annotations
