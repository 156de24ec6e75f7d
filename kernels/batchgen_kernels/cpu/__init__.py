"""Kernels for a CPU in one C++ file, compiled on the machine that runs them."""

from __future__ import annotations
