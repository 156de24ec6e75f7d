"""The state in SQL: jobs, shards, leases and parts, and the transactions that change it."""

from __future__ import annotations
