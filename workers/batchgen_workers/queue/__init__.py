"""Celery and its broker: shard ids, nothing else."""

from __future__ import annotations
