"""One engine in a process of its own, kept alive."""

from __future__ import annotations
