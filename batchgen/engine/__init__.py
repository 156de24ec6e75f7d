"""Inference: block pool, scheduler, sampling, model adapter. Knows nothing of jobs or SQL."""

from __future__ import annotations
