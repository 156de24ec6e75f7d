"""Lines as OpenAI's batches have them, for each endpoint."""

from __future__ import annotations
