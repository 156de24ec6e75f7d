"""Turn a submission into a job: its input, the tokens it may take, its shards."""

from __future__ import annotations
