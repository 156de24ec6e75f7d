"""Ties jobs to the engine: Celery app and task, engine child process, coordinator."""

from __future__ import annotations
