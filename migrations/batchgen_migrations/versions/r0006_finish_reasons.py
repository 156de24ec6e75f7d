"""Why the answers of a part, and of all parts of a job, ended."""

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
    """Add the columns: of parts that exist nobody knows, so they are in neither count."""
    for table in TABLES:
        for name in COUNTS:
            column = sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
            op.add_column(table, column)


def downgrade() -> None:
    """Drop the columns with what they held; the files of the parts still say it."""
    for table in TABLES:
        for name in reversed(COUNTS):
            op.drop_column(table, name)
