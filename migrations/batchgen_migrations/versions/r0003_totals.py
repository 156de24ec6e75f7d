"""Adds a table with the sums of a job's parts, and an index of the shards in work."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COUNTS = (
    *("parts", "n_rows", "n_ok", "n_err"),
    *("prompt_tokens", "completion_tokens", "cached_tokens", "preemptions", "copies", "kv_rows"),
)
WEIGHED = ("kv_utilisation", "sharing_saving")
BEGUN = "rows_done > 0 AND state <> 'committed'"

#: Adds up the parts that exist already.
ADD_UP = """
    INSERT INTO totals
    SELECT j.id, count(p.shard_id), coalesce(sum(p.n_rows), 0), coalesce(sum(p.n_ok), 0),
           coalesce(sum(p.n_err), 0), coalesce(sum(p.prompt_tokens), 0),
           coalesce(sum(p.completion_tokens), 0), coalesce(sum(p.cached_tokens), 0),
           coalesce(sum(p.preemptions), 0), coalesce(sum(p.copies), 0),
           coalesce(sum(CASE WHEN p.kv_utilisation IS NOT NULL THEN p.n_ok END), 0),
           coalesce(sum(p.kv_utilisation * p.n_ok), 0), coalesce(sum(p.sharing_saving * p.n_ok), 0)
    FROM jobs j LEFT JOIN parts p ON p.job_id = j.id GROUP BY j.id
"""


def upgrade() -> None:
    """Create the table, add up the committed parts, and create the index."""
    op.create_table(
        "totals",
        sa.Column("job_id", KEY, autoincrement=False, nullable=False),
        *[_column(name, sa.BigInteger()) for name in COUNTS],
        *[_column(name, sa.Double()) for name in WEIGHED],
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_totals_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_totals")),
    )
    op.execute(ADD_UP)
    op.create_index(
        "shard_begun",
        "shards",
        ["job_id"],
        sqlite_where=sa.text(BEGUN),
        postgresql_where=sa.text(BEGUN),
    )


def downgrade() -> None:
    """Drop both; the parts still hold the data."""
    op.drop_index("shard_begun", table_name="shards")
    op.drop_table("totals")


def _column(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, server_default="0", nullable=False)
