"""Bytes in, bytes out: request lines, storage, Parquet parts, the dataset and its manifest."""

from __future__ import annotations
