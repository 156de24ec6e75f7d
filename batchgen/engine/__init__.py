"""Inference: block pool, scheduler, sampling, model adapter. Independent of jobs and SQL."""

from __future__ import annotations
