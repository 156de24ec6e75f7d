"""Adds counts of finish reasons to parts and to the totals of a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = ("parts", "totals")
COUNTS = ("n_stop", "n_length")


def upgrade() -> None:
    """Add the columns; existing parts are in neither count, because their reasons are unknown."""
    for table in TABLES:
        for name in COUNTS:
            column = sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
            op.add_column(table, column)


def downgrade() -> None:
    """Drop the columns and their data; the files of the parts still hold the finish reasons."""
    for table in TABLES:
        for name in reversed(COUNTS):
            op.drop_column(table, name)
