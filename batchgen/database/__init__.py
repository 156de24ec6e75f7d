"""SQL itself: tables, connections, transactions, and what a failure means."""

from __future__ import annotations
