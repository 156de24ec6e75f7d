"""One engine in a process of its own, started again when it dies."""

from __future__ import annotations
