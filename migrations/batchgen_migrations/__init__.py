"""Alembic environment and revisions, runnable from an installed wheel."""

from __future__ import annotations

from batchgen_migrations.runner import check, current, downgrade, upgrade

__all__ = ["check", "current", "downgrade", "upgrade"]
