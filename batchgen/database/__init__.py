"""SQL itself: the engine, tables, transactions and what failures mean."""

from __future__ import annotations
