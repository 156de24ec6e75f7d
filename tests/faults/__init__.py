"""The fault matrix: one test for each fault that can be injected here, named by its number."""

from __future__ import annotations
