"""Checks of what comes with a model, in a process with bounds."""

from __future__ import annotations
