"""How a shard's id reaches a worker: Celery and its broker, or a queue within the process."""

from __future__ import annotations
