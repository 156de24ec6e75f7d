"""The vocabulary that engine, jobs and workers share: rows, parameters, statistics."""

from __future__ import annotations
