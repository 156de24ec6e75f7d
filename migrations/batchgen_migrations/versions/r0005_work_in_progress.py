"""Adds the length of leases, failures of shards, and tokens of rows that are being computed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SHARD_COUNTS = {
    "failures": sa.Integer(),
    "tokens_done": sa.BigInteger(),
    "tokens_running": sa.BigInteger(),
}
JOB_COLUMNS = ("final_seconds", "answer_tokens")


def upgrade() -> None:
    """Add the columns; counts begin at 0, and the length of a lease is unknown until a renewal."""
    for name, kind in SHARD_COUNTS.items():
        op.add_column("shards", sa.Column(name, kind, server_default="0", nullable=False))
    op.add_column("shards", sa.Column("lease_seconds", sa.Double(), nullable=True))
    for name in JOB_COLUMNS:
        op.add_column("jobs", sa.Column(name, sa.Double(), nullable=True))


def downgrade() -> None:
    """Drop the columns and their data."""
    for name in JOB_COLUMNS:
        op.drop_column("jobs", name)
    for name in (*SHARD_COUNTS, "lease_seconds"):
        op.drop_column("shards", name)
