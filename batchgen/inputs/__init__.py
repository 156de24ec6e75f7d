"""Stored inputs: records, their index, and how a file comes in."""

from __future__ import annotations
