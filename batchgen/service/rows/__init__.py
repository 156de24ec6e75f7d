"""Rows of jobs, finished or running: as streams, in pages, and failed ones in groups."""

from __future__ import annotations
