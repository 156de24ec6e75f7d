"""Streams of a dataset: its rows as record batches, and those as JSON Lines, Arrow or Parquet."""

from __future__ import annotations
