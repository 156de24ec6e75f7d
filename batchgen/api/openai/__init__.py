"""OpenAI's Batch API: /v1/files, /v1/batches, /v1/models."""

from __future__ import annotations
