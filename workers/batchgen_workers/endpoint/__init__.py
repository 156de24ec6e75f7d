"""Rows answered by the HTTP endpoint of another engine, behind the contract of our own engine."""

from __future__ import annotations
