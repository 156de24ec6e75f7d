"""OpenAI's Batch API over jobs: uploaded files, batches, and the check that makes a batch a job."""

from __future__ import annotations
