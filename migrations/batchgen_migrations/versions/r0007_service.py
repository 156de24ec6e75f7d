"""Adds tenants, keys, usage, files, batches and webhooks, and indexes to find a job by its name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

Bytewise = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

TABLES = ("deliveries", "webhooks", "files", "batches", "usage", "api_keys", "tenants")
INDEXES = {
    "job_newest": ["tenant_id", "id"],
    "job_named": ["tenant_id", "name", "id"],
    "job_beginning": ["tenant_id", "public_id"],
    "job_end": ["tenant_id", "reversed_id"],
    "job_in_state": ["state", "not_before"],
    "job_of_state": ["tenant_id", "state", "id"],
    "job_of_model": ["model", "id"],
}
#: Columns and condition by name.
PARTIAL_INDEXES = {
    "job_open": (["tenant_id", "expected_tokens"], "ended_at IS NULL"),
    "job_open_model": (["model"], "ended_at IS NULL"),
    "job_expiring": (["deadline"], "ended_at IS NULL"),
}
COUNTS = (
    *("jobs", "rows_ok", "rows_err"),
    *("prompt_tokens", "completion_tokens", "cached_tokens"),
)
UNCHECKED = sa.text(
    "job_id IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND ended IS NULL"
)


def upgrade() -> None:
    """Create the tables, and the tenant of the command line; give each job its reversed id."""
    _add_to_jobs()
    _create_tenants()
    _create_batches()
    _create_files()
    _create_webhooks()


def downgrade() -> None:
    """Drop the tables with all keys, files and batches; jobs keep their rows and results."""
    for table in TABLES:
        op.drop_table(table)
    for index in (*INDEXES, *PARTIAL_INDEXES):
        op.drop_index(index, "jobs")
    op.create_index(op.f("ix_jobs_state"), "jobs", ["state"])
    op.drop_column("removals", "tenant_id")
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("jobs", "public_id", type_=sa.Text(), existing_nullable=False)
    for column in ("expected_tokens", "key_id", "reversed_id"):
        op.drop_column("jobs", column)


def _add_to_jobs() -> None:
    op.add_column("jobs", sa.Column("reversed_id", Bytewise, nullable=True))
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("jobs", "public_id", type_=Bytewise, existing_nullable=False)
    op.add_column("jobs", sa.Column("key_id", sa.Text(), nullable=True))
    op.add_column(
        "jobs", sa.Column("expected_tokens", sa.BigInteger(), server_default="0", nullable=False)
    )
    jobs = sa.table("jobs", sa.column("id"), sa.column("public_id"), sa.column("reversed_id"))
    connection = op.get_bind()
    known = connection.execute(sa.select(jobs.c.id, jobs.c.public_id)).all()
    change = sa.update(jobs).where(jobs.c.id == sa.bindparam("job"))
    if known:
        connection.execute(
            change.values(reversed_id=sa.bindparam("reversed")),
            [{"job": job.id, "reversed": job.public_id[::-1]} for job in known],
        )
    op.drop_index(op.f("ix_jobs_state"), "jobs")
    for name, columns in INDEXES.items():
        op.create_index(name, "jobs", columns)
    for name, (columns, condition) in PARTIAL_INDEXES.items():
        where = sa.text(condition)
        op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)
    op.add_column(
        "removals", sa.Column("tenant_id", sa.Text(), server_default="local", nullable=False)
    )


def _create_tenants() -> None:
    tenants = op.create_table(
        "tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("max_jobs", sa.Integer(), nullable=True),
        sa.Column("max_rows", sa.BigInteger(), nullable=True),
        sa.Column("max_tokens", sa.BigInteger(), nullable=True),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )
    op.bulk_insert(tenants, [{"id": "local", "created_at": 0.0}])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index(op.f("ix_api_keys_tenant_id"), "api_keys", ["tenant_id"])
    counts = [
        sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in COUNTS
    ]
    op.create_table(
        "usage",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        *counts,
        sa.PrimaryKeyConstraint("tenant_id", "key_id", "model", name=op.f("pk_usage")),
    )


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("idem_key", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("completion_window", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("input_file_id", sa.Text(), nullable=False),
        sa.Column("input_sha256", sa.Text(), nullable=True),
        sa.Column("output_file_id", sa.Text(), nullable=False),
        sa.Column("error_file_id", sa.Text(), nullable=False),
        sa.Column("output_seconds", sa.Double(), nullable=True),
        sa.Column("job_id", Key, nullable=True),
        sa.Column("ended", sa.Text(), nullable=True),
        sa.Column("errors", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("not_before", sa.Double(), server_default="0", nullable=False),
        sa.Column("claimed_until", sa.Double(), nullable=True),
        sa.Column("in_progress_at", sa.Double(), nullable=True),
        sa.Column("failed_at", sa.Double(), nullable=True),
        sa.Column("cancelling_at", sa.Double(), nullable=True),
        sa.Column("cancelled_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["input_sha256"], ["inputs.sha256"], name=op.f("fk_batches_input_sha256_inputs")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_batches_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("tenant_id", "idem_key", name=op.f("uq_batches_tenant_id")),
        sa.UniqueConstraint("job_id", name=op.f("uq_batches_job_id")),
    )
    op.create_index("batch_newest", "batches", ["tenant_id", "id"])
    op.create_index(op.f("ix_batches_input_sha256"), "batches", ["input_sha256"])
    op.create_index(
        "batch_unchecked",
        "batches",
        ["created_at"],
        sqlite_where=UNCHECKED,
        postgresql_where=UNCHECKED,
    )


def _create_files() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("input_sha256", sa.Text(), nullable=True),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["input_sha256"], ["inputs.sha256"], name=op.f("fk_files_input_sha256_inputs")
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_files_batch_id_batches")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
    )
    op.create_index("file_newest", "files", ["tenant_id", "id"])
    op.create_index(op.f("ix_files_input_sha256"), "files", ["input_sha256"])
    op.create_index(op.f("ix_files_batch_id"), "files", ["batch_id"])
    uncounted = sa.text("bytes IS NULL")
    op.create_index(
        "file_uncounted",
        "files",
        ["batch_id"],
        sqlite_where=uncounted,
        postgresql_where=uncounted,
    )
    _partial_index("file_expiring", "files", "expires_at")


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("disabled_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_tenant_id"), "webhooks", ["tenant_id"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", sa.Double(), nullable=True),
        sa.Column("delivered_at", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_deliveries_webhook_id_webhooks")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index("delivery_newest", "deliveries", ["webhook_id", "id"])
    _partial_index("delivery_due", "deliveries", "next_at")


def _partial_index(name: str, table: str, column: str) -> None:
    present = sa.text(f"{column} IS NOT NULL")
    op.create_index(name, table, [column], sqlite_where=present, postgresql_where=present)
