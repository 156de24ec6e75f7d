"""Tests of the HTTP service."""

from __future__ import annotations
