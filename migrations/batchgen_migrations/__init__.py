"""Alembic environment and revisions, runnable from an installed wheel."""

from __future__ import annotations
