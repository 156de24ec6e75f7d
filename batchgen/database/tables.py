"""The tables of the database. Times are seconds since the epoch by the database's clock."""

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

# SQLite assigns keys by itself only if the type is exactly INTEGER.
Key = BigInteger().with_variant(Integer(), "sqlite")

# Text whose order is that of its bytes, as ranges need it. SQLite has no other order.
Bytewise = Text().with_variant(Text(collation="C"), "postgresql")

TEXT_LIMIT = 2000  # characters of a text that `storable` returns


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
    # uuid7 as hex; the only id that users see
    Column("public_id", Bytewise, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("idem_key", Text, nullable=False),
    Column("name", Text),
    Column("parent_id", Key, ForeignKey("jobs.id")),
    Column("input_sha256", Text, ForeignKey("inputs.sha256"), nullable=False),
    # NULL if positions are rows
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
    # The length of the final lease if it is not renewed.
    Column("final_seconds", Double),
    # Expected tokens of all answers of one row together; NULL if unknown.
    Column("answer_tokens", Double),
    # The public id backwards: users also name a job by the end of its id.
    Column("reversed_id", Bytewise),
    # The API key that submitted it; NULL for the command line.
    Column("key_id", Text),
    # Expected tokens of all prompts and answers, for quotas.
    Column("expected_tokens", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("public_id"),
    UniqueConstraint("tenant_id", "idem_key"),
    _one_of("state", JobState),
    _one_of("stop_reason", StopReason),
    CheckConstraint("n_rows >= 0", name="n_rows"),
    CheckConstraint("state <> 'completed' OR manifest_sha256 IS NOT NULL", name="manifest"),
    Index("job_in_state", "state", "not_before"),
    Index(None, "input_sha256"),
    Index("job_newest", "tenant_id", "id"),
    Index("job_named", "tenant_id", "name", "id"),
    # A beginning or an end of an id is looked for among the jobs of one tenant.
    Index("job_beginning", "tenant_id", "public_id"),
    Index("job_end", "tenant_id", "reversed_id"),
    Index("job_of_state", "tenant_id", "state", "id"),
    Index("job_of_model", "model", "id"),
    # Few of many jobs have not ended.
    Index(
        "job_open",
        "tenant_id",
        "expected_tokens",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index(
        "job_expiring",
        "deadline",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    Index(
        "job_open_model",
        "model",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    # Ids are never reused: otherwise a lease of a removed job could pass the fence of a new one.
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
    # Leases that ran out. The rows need not be the cause.
    Column("lost", Integer, nullable=False, server_default="0"),
    # Engine deaths that a live supervisor saw while these rows were active.
    Column("deaths", Integer, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    Column("lease_expires_at", Double),
    Column("not_before", Double, nullable=False, server_default="0"),
    # When its id was last published; NULL once it is claimed.
    Column("enqueued_at", Double),
    Column("rows_done", BigInteger, nullable=False, server_default="0"),
    Column("give_up", Boolean, nullable=False, server_default=false()),
    Column("last_error", Text),
    # The number of failures that a repetition may not fix.
    Column("failures", Integer, nullable=False, server_default="0"),
    # Tokens generated for the finished rows, and for rows that are being computed.
    Column("tokens_done", BigInteger, nullable=False, server_default="0"),
    Column("tokens_running", BigInteger, nullable=False, server_default="0"),
    # The length of the lease if it is not renewed. A later expiry shows a clock that was set back.
    Column("lease_seconds", Double),
    _one_of("state", ShardState),
    CheckConstraint("pos_end > pos_start AND n_rows = pos_end - pos_start", name="range"),
    CheckConstraint(
        "(state = 'leased') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
        name="lease",
    ),
    # `parts` refers to this, so that a part cannot have another number of rows.
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
    # Shards that are not committed and have some rows done.
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
    # Means over the n_ok rows; NULL if nothing was measured.
    Column("kv_utilisation", Double),
    Column("sharing_saving", Double),
    # Answered rows by finish reason of the first choice; parts of earlier versions count in none.
    Column("n_stop", BigInteger, nullable=False, server_default="0"),
    Column("n_length", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("path"),
    CheckConstraint("n_ok >= 0 AND n_err >= 0 AND n_ok + n_err = n_rows", name="counts"),
    ForeignKeyConstraint(
        ["shard_id", "job_id", "n_rows"], ["shards.id", "shards.job_id", "shards.n_rows"]
    ),
    Index(None, "job_id"),
)

#: The sums of each job's parts. A transaction that inserts or deletes a part updates them.
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
    # Answered rows of measured parts, and sums over those parts of mean times answered rows.
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
    # JSON: statistics of the engine, shown by `batchgen workers`
    Column("stats", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
)

#: The store of files that this database belongs to; no row before the first job.
identity = Table(
    "identity",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # the id in the store's file `store-id`
    Column("store", Text, nullable=False),
    # host and folder of the process that wrote this row, for messages
    Column("place", Text, nullable=False),
    CheckConstraint("id = 1", name="one"),
)

#: Removed jobs: all their files are to be deleted, also those that a late worker still writes.
removals = Table(
    "removals",
    metadata,
    Column("public_id", Text, primary_key=True),
    # deleted too if no other job uses it; NULL once this is done
    Column("input_sha256", Text),
    Column("removed_at", Double, nullable=False),
    Column("tenant_id", Text, nullable=False, server_default="local"),
)


def shard_is(*states: ShardState) -> ColumnElement[bool]:
    """Return the condition that a shard is in one of `states`.

    The states are literals: with bound parameters neither database would use a partial index. There
    is one comparison for each state, because SQLite uses no such index for IN.
    """
    return or_(*[shards.c.state == literal_column(f"'{state}'") for state in states])


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT of this database's dialect, which has ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def storable(words: str) -> str:
    """Return the words in a form that both databases can store.

    NUL and lone surrogates are replaced, and the words are cut to TEXT_LIMIT, so that any message
    of an exception can be stored.
    """
    return words.replace("\0", " ").encode("utf-8", "replace").decode()[:TEXT_LIMIT]
