"""Attention and cache kernels behind one interface."""

from __future__ import annotations
