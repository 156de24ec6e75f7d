"""The HTTP service: OpenAI's Batch API under /v1, the native API under /api/v1."""

from __future__ import annotations
