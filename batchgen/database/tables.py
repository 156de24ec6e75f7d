"""The tables of the truth. Times are seconds since the epoch by the database's clock."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal_column,
    or_,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

from batchgen.core.states import InputState, JobState, ShardState, StopReason

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only where the key is exactly INTEGER.
Key = BigInteger().with_variant(Integer(), "sqlite")


def _one_of(column: str, members: Iterable[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{member}'" for member in members)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


inputs = Table(
    "inputs",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("n_rows", BigInteger, nullable=False),
    Column("format", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    _one_of("state", InputState),
    CheckConstraint("n_rows >= 0", name="n_rows"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Key, primary_key=True),
    # uuid7 hex; the only id that leaves the process
    Column("public_id", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("idem_key", Text, nullable=False),
    Column("name", Text),
    Column("parent_id", Key, ForeignKey("jobs.id")),
    Column("input_sha256", Text, ForeignKey("inputs.sha256"), nullable=False),
    # NULL where positions are rows
    Column("index_path", Text),
    Column("model", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    # JSON: defaults for every row
    Column("params", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("stop_reason", Text),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("not_before", Double, nullable=False, server_default="0"),
    Column("deadline", Double),
    # such as 22:00-06:00 Europe/Berlin
    Column("window_spec", Text),
    Column("n_rows", BigInteger, nullable=False),
    Column("n_positions", BigInteger, nullable=False),
    Column("final_epoch", BigInteger, nullable=False, server_default="0"),
    Column("final_owner", Text),
    Column("final_expires_at", Double),
    Column("dataset_path", Text),
    Column("manifest_sha256", Text),
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finalizing_at", Double),
    Column("ended_at", Double),
    # How long the final lease lasts unrenewed.
    Column("final_seconds", Double),
    # Expected of all answers of a row together; NULL where nothing is known.
    Column("answer_tokens", Double),
    UniqueConstraint("public_id"),
    UniqueConstraint("tenant_id", "idem_key"),
    _one_of("state", JobState),
    _one_of("stop_reason", StopReason),
    CheckConstraint("n_rows >= 0", name="n_rows"),
    CheckConstraint("state <> 'completed' OR manifest_sha256 IS NOT NULL", name="manifest"),
    Index(None, "state"),
    Index(None, "input_sha256"),
    # An id used twice would let a lease of a removed job pass the fence of a new one.
    sqlite_autoincrement=True,
)

shards = Table(
    "shards",
    metadata,
    Column("id", Key, primary_key=True),
    Column("job_id", Key, ForeignKey("jobs.id"), nullable=False),
    Column("parent_id", Key, ForeignKey("shards.id")),
    Column("pos_start", BigInteger, nullable=False),
    Column("pos_end", BigInteger, nullable=False),
    Column("n_rows", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # Leases that ran out: says nothing against the rows.
    Column("lost", Integer, nullable=False, server_default="0"),
    # Engine deaths a live supervisor saw while these rows were active.
    Column("deaths", Integer, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    Column("lease_expires_at", Double),
    Column("not_before", Double, nullable=False, server_default="0"),
    # When its doorbell last rang; NULL once it is claimed.
    Column("enqueued_at", Double),
    Column("rows_done", BigInteger, nullable=False, server_default="0"),
    Column("give_up", Boolean, nullable=False, server_default=false()),
    Column("last_error", Text),
    # Times that it ended in a way that a repetition may not mend.
    Column("failures", Integer, nullable=False, server_default="0"),
    # Tokens generated for these rows, and for those that are being computed.
    Column("tokens_done", BigInteger, nullable=False, server_default="0"),
    Column("tokens_running", BigInteger, nullable=False, server_default="0"),
    # How long the lease lasts unrenewed: an expiry further ahead is of a clock that stepped back.
    Column("lease_seconds", Double),
    _one_of("state", ShardState),
    CheckConstraint("pos_end > pos_start AND n_rows = pos_end - pos_start", name="range"),
    CheckConstraint(
        "(state = 'leased') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
        name="lease",
    ),
    # What parts refers to, so that a part can never claim another number of rows.
    UniqueConstraint("id", "job_id", "n_rows"),
    Index(
        "shard_leaf_start",
        "job_id",
        "pos_start",
        unique=True,
        sqlite_where=text("state <> 'split'"),
        postgresql_where=text("state <> 'split'"),
    ),
    Index("shard_due", "job_id", "state", "pos_start"),
    Index(
        "shard_leased",
        "lease_expires_at",
        sqlite_where=text("state = 'leased'"),
        postgresql_where=text("state = 'leased'"),
    ),
    Index(
        "shard_rung",
        "enqueued_at",
        sqlite_where=text("enqueued_at IS NOT NULL"),
        postgresql_where=text("enqueued_at IS NOT NULL"),
    ),
    # Shards in work, of which some rows are done.
    Index(
        "shard_begun",
        "job_id",
        sqlite_where=text("rows_done > 0 AND state <> 'committed'"),
        postgresql_where=text("rows_done > 0 AND state <> 'committed'"),
    ),
    Index("shard_parent", "parent_id"),
    sqlite_autoincrement=True,
)

parts = Table(
    "parts",
    metadata,
    Column("shard_id", Key, primary_key=True, autoincrement=False),
    Column("job_id", Key, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("n_rows", BigInteger, nullable=False),
    Column("n_ok", BigInteger, nullable=False),
    Column("n_err", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False, server_default="0"),
    Column("completion_tokens", BigInteger, nullable=False, server_default="0"),
    Column("committed_at", Double, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False, server_default="0"),
    Column("preemptions", BigInteger, nullable=False, server_default="0"),
    Column("copies", BigInteger, nullable=False, server_default="0"),
    # Means over the n_ok rows; NULL where nothing was measured.
    Column("kv_utilisation", Double),
    Column("sharing_saving", Double),
    # Answered rows by the finish reason of their first choice; earlier parts are in neither.
    Column("n_stop", BigInteger, nullable=False, server_default="0"),
    Column("n_length", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("path"),
    CheckConstraint("n_ok >= 0 AND n_err >= 0 AND n_ok + n_err = n_rows", name="counts"),
    ForeignKeyConstraint(
        ["shard_id", "job_id", "n_rows"], ["shards.id", "shards.job_id", "shards.n_rows"]
    ),
    Index(None, "job_id"),
)

#: The sums of each job's parts, kept by whoever inserts or deletes one.
totals = Table(
    "totals",
    metadata,
    Column("job_id", Key, ForeignKey("jobs.id"), primary_key=True, autoincrement=False),
    Column("parts", BigInteger, nullable=False, server_default="0"),
    Column("n_rows", BigInteger, nullable=False, server_default="0"),
    Column("n_ok", BigInteger, nullable=False, server_default="0"),
    Column("n_err", BigInteger, nullable=False, server_default="0"),
    Column("prompt_tokens", BigInteger, nullable=False, server_default="0"),
    Column("completion_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cached_tokens", BigInteger, nullable=False, server_default="0"),
    Column("preemptions", BigInteger, nullable=False, server_default="0"),
    Column("copies", BigInteger, nullable=False, server_default="0"),
    # Answered rows of parts that were measured, and the means of those parts times such rows.
    Column("kv_rows", BigInteger, nullable=False, server_default="0"),
    Column("kv_utilisation", Double, nullable=False, server_default="0"),
    Column("sharing_saving", Double, nullable=False, server_default="0"),
    Column("n_stop", BigInteger, nullable=False, server_default="0"),
    Column("n_length", BigInteger, nullable=False, server_default="0"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("shard_id", Key, ForeignKey("shards.id"), primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("n_rows", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("device", Text, nullable=False),
    Column("pool_blocks", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    # JSON: the engine's own numbers, shown by `batchgen workers`
    Column("stats", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
)

#: The store of files that this database speaks of; no row before the first job.
identity = Table(
    "identity",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # what stands in the store's own file
    Column("store", Text, nullable=False),
    # host and folder of whoever wrote this row, for messages
    Column("place", Text, nullable=False),
    CheckConstraint("id = 1", name="one"),
)

#: Removed jobs: whatever lies under their names is to go, and a late worker may add to it.
removals = Table(
    "removals",
    metadata,
    Column("public_id", Text, primary_key=True),
    # goes too, where no job uses it; NULL once that is settled
    Column("input_sha256", Text),
    Column("removed_at", Double, nullable=False),
)


def shard_is(*states: ShardState) -> ColumnElement[bool]:
    """Return the condition that a shard is in one of `states`.

    The states stand in the SQL as they are: with bound parameters neither database could see
    that a partial index serves the query. Each stands alone: SQLite sees no index behind IN.
    """
    return or_(*[shards.c.state == literal_column(f"'{state}'") for state in states])


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT in this database's words, which alone know ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
