"""Checks of a model's files before they are used, in a process with a memory limit."""

from __future__ import annotations
