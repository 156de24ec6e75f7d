"""The truth in SQL: jobs, shards, leases, parts, and the transactions that move them."""

from __future__ import annotations
