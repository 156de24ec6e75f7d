"""Carries shard ids to workers: Celery and its broker, or a queue within the process."""

from __future__ import annotations
