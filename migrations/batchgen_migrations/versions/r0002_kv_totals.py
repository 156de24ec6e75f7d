"""Adds KV pool totals and cached tokens to parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNTS = ("cached_tokens", "preemptions", "copies")
MEANS = ("kv_utilisation", "sharing_saving")


def upgrade() -> None:
    """Add the columns to parts; counts begin at 0, and the means of existing parts are unknown."""
    for name in COUNTS:
        op.add_column("parts", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    for name in MEANS:
        op.add_column("parts", sa.Column(name, sa.Double(), nullable=True))


def downgrade() -> None:
    """Drop the columns and their data."""
    for name in (*MEANS, *COUNTS):
        op.drop_column("parts", name)
