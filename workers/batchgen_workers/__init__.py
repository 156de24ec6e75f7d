"""Ties jobs to the engine; a row goes through `queue`, `shard` and `engine_process`."""

from __future__ import annotations
