"""The first schema: inputs, jobs, shards, parts, checkpoints, workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only where the key is exactly INTEGER.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

TABLES = ("inputs", "jobs", "shards", "parts", "checkpoints", "workers")


def upgrade() -> None:
    """Create every table, referenced tables first."""
    _create_inputs()
    _create_jobs()
    _create_shards()
    _create_parts()
    _create_checkpoints()
    _create_workers()


def downgrade() -> None:
    """Drop every table."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _create_partial_index(
    name: str, columns: list[str], *, where: str, unique: bool = False
) -> None:
    op.create_index(
        name,
        "shards",
        columns,
        unique=unique,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )


def _create_inputs() -> None:
    op.create_table(
        "inputs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("n_rows", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "state IN ('validating', 'ready', 'invalid')", name=op.f("ck_inputs_state")
        ),
        sa.CheckConstraint("n_rows >= 0", name=op.f("ck_inputs_n_rows")),
        sa.PrimaryKeyConstraint("sha256", name="pk_inputs"),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", KEY, nullable=False),
        sa.Column("public_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("idem_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("parent_id", KEY, nullable=True),
        sa.Column("input_sha256", sa.Text(), nullable=False),
        sa.Column("index_path", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_sha256", sa.Text(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("not_before", sa.Double(), server_default="0", nullable=False),
        sa.Column("deadline", sa.Double(), nullable=True),
        sa.Column("window_spec", sa.Text(), nullable=True),
        sa.Column("n_rows", sa.BigInteger(), nullable=False),
        sa.Column("n_positions", sa.BigInteger(), nullable=False),
        sa.Column("final_epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("final_owner", sa.Text(), nullable=True),
        sa.Column("final_expires_at", sa.Double(), nullable=True),
        sa.Column("dataset_path", sa.Text(), nullable=True),
        sa.Column("manifest_sha256", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finalizing_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state <> 'completed' OR manifest_sha256 IS NOT NULL", name=op.f("ck_jobs_manifest")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'stopping', 'finalizing', 'completed', "
            "'cancelled', 'expired', 'failed')",
            name=op.f("ck_jobs_state"),
        ),
        sa.CheckConstraint("stop_reason IN ('cancel', 'expire')", name=op.f("ck_jobs_stop_reason")),
        sa.CheckConstraint("n_rows >= 0", name=op.f("ck_jobs_n_rows")),
        sa.ForeignKeyConstraint(
            ["input_sha256"], ["inputs.sha256"], name="fk_jobs_input_sha256_inputs"
        ),
        sa.ForeignKeyConstraint(["parent_id"], ["jobs.id"], name="fk_jobs_parent_id_jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("public_id", name="uq_jobs_public_id"),
        sa.UniqueConstraint("tenant_id", "idem_key", name="uq_jobs_tenant_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_input_sha256", "jobs", ["input_sha256"])
    op.create_index("ix_jobs_state", "jobs", ["state"])


def _create_shards() -> None:
    op.create_table(
        "shards",
        sa.Column("id", KEY, nullable=False),
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("parent_id", KEY, nullable=True),
        sa.Column("pos_start", sa.BigInteger(), nullable=False),
        sa.Column("pos_end", sa.BigInteger(), nullable=False),
        sa.Column("n_rows", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lost", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deaths", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("not_before", sa.Double(), server_default="0", nullable=False),
        sa.Column("enqueued_at", sa.Double(), nullable=True),
        sa.Column("rows_done", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("give_up", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'leased') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("ck_shards_lease"),
        ),
        sa.CheckConstraint(
            "state IN ('ready', 'leased', 'committed', 'split', 'stopped')",
            name=op.f("ck_shards_state"),
        ),
        sa.CheckConstraint(
            "pos_end > pos_start AND n_rows = pos_end - pos_start", name=op.f("ck_shards_range")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_shards_job_id_jobs"),
        sa.ForeignKeyConstraint(["parent_id"], ["shards.id"], name="fk_shards_parent_id_shards"),
        sa.PrimaryKeyConstraint("id", name="pk_shards"),
        sa.UniqueConstraint("id", "job_id", "n_rows", name="uq_shards_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("shard_due", "shards", ["job_id", "state", "pos_start"])
    _create_partial_index(
        "shard_leaf_start", ["job_id", "pos_start"], where="state <> 'split'", unique=True
    )
    _create_partial_index("shard_leased", ["lease_expires_at"], where="state = 'leased'")
    op.create_index("shard_parent", "shards", ["parent_id"])
    _create_partial_index("shard_rung", ["enqueued_at"], where="enqueued_at IS NOT NULL")


def _create_parts() -> None:
    op.create_table(
        "parts",
        sa.Column("shard_id", KEY, nullable=False),
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("n_rows", sa.BigInteger(), nullable=False),
        sa.Column("n_ok", sa.BigInteger(), nullable=False),
        sa.Column("n_err", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("committed_at", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "n_ok >= 0 AND n_err >= 0 AND n_ok + n_err = n_rows", name=op.f("ck_parts_counts")
        ),
        sa.ForeignKeyConstraint(
            ["shard_id", "job_id", "n_rows"],
            ["shards.id", "shards.job_id", "shards.n_rows"],
            name="fk_parts_shard_id_shards",
        ),
        sa.PrimaryKeyConstraint("shard_id", name="pk_parts"),
        sa.UniqueConstraint("path", name="uq_parts_path"),
    )
    op.create_index("ix_parts_job_id", "parts", ["job_id"])


def _create_checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("shard_id", KEY, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("n_rows", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["shard_id"], ["shards.id"], name="fk_checkpoints_shard_id_shards"),
        sa.PrimaryKeyConstraint("shard_id", name="pk_checkpoints"),
    )


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("pool_blocks", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("stats", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
