"""The tables of OpenAI's Batch API: uploaded files, and batches.

upload ─► files ─► batches ──(its lines are valid)──► jobs

A batch has its job only once its lines are checked. The job's public id is the batch's id.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from batchgen.database.tables import Key, metadata

#: The condition that the lines of a batch are still to be checked, and the batch is not cancelled.
UNCHECKED = text("job_id IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND ended IS NULL")

batches = Table(
    "batches",
    metadata,
    # uuid7 as hex; users see `batch_<id>`
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("key_id", Text),
    Column("idem_key", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    # as the caller wrote it, such as 24h
    Column("completion_window", Text, nullable=False),
    # JSON: the caller's own pairs
    Column("metadata", Text),
    # JSON: the extensions under `batchgen`
    Column("options", Text, nullable=False),
    Column("model", Text, nullable=False),
    # The file may be deleted; the batch keeps its input as long as its job.
    Column("input_file_id", Text, nullable=False),
    Column("input_sha256", Text, ForeignKey("inputs.sha256")),
    Column("output_file_id", Text, nullable=False),
    Column("error_file_id", Text, nullable=False),
    # seconds after creation at which the output files are deleted
    Column("output_seconds", Double),
    Column("job_id", Key, ForeignKey("jobs.id")),
    # JSON: how its job had ended, once that is removed with all results
    Column("ended", Text),
    # JSON: problems of lines, if the input was refused
    Column("errors", Text),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    # as in jobs
    Column("not_before", Double, nullable=False, server_default="0"),
    # A coordinator checks the lines until then, unless it renews this.
    Column("claimed_until", Double),
    # when its job was created
    Column("in_progress_at", Double),
    Column("failed_at", Double),
    Column("cancelling_at", Double),
    # if it was cancelled before it had a job
    Column("cancelled_at", Double),
    UniqueConstraint("tenant_id", "idem_key"),
    UniqueConstraint("job_id"),
    Index("batch_newest", "tenant_id", "id"),
    Index(None, "input_sha256"),
    Index(
        "batch_unchecked",
        "created_at",
        sqlite_where=UNCHECKED,
        postgresql_where=UNCHECKED,
    ),
)

files = Table(
    "files",
    metadata,
    # uuid7 as hex; users see `file-<id>`
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("key_id", Text),
    Column("filename", Text, nullable=False),
    # batch or batch_output
    Column("purpose", Text, nullable=False),
    # NULL: an output file whose lines have not been counted
    Column("bytes", BigInteger),
    # NULL: an output file, whose lines are read from the dataset
    Column("input_sha256", Text, ForeignKey("inputs.sha256")),
    Column("batch_id", Text, ForeignKey("batches.id")),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Index("file_newest", "tenant_id", "id"),
    Index(None, "input_sha256"),
    Index(None, "batch_id"),
    Index(
        "file_uncounted",
        "batch_id",
        sqlite_where=text("bytes IS NULL"),
        postgresql_where=text("bytes IS NULL"),
    ),
    Index(
        "file_expiring",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
)
