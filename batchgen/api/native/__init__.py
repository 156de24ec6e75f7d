"""The native API under /api/v1: jobs, rows, results, events, workers."""

from __future__ import annotations
