"""Kernels for GPUs, in Triton."""

from __future__ import annotations
