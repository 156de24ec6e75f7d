"""Tests of the batchgen command."""

from __future__ import annotations
