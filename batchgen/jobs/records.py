"""What the store takes and returns: rows of the truth, and leases on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

import orjson

from batchgen.core.finish_reasons import UNCOUNTED, FinishReasons
from batchgen.core.kv_totals import UNMEASURED, KVTotals
from batchgen.core.row_lengths import RowLengths
from batchgen.core.states import JobState, ShardState, StopReason

if TYPE_CHECKING:
    from sqlalchemy import Row

#: The tenant of everything that is submitted without an API key.
LOCAL_TENANT = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a caller submits; the store adds ids, times and shards."""

    input_sha256: str
    input_bytes: int
    n_rows: int
    # of its rows, for the size of its shards; None where nobody has looked
    lengths: RowLengths | None = None
    model: str
    model_sha256: str
    # defaults for every row, as checked by batchgen.requests.lines.check_defaults
    params: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    priority: int = 0
    not_before: float = 0.0
    deadline: float | None = None
    # '22:00-06:00 Europe/Berlin', the text of a Window
    window: str | None = None
    # Two submits with one key are one job; None never meets another.
    idem_key: str | None = None
    tenant_id: str = LOCAL_TENANT


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job as SQL has it."""

    id: int
    public_id: str
    tenant_id: str
    idem_key: str
    name: str | None
    parent_id: int | None
    input_sha256: str
    index_path: str | None
    model: str
    model_sha256: str
    params: dict[str, Any]
    state: JobState
    stop_reason: StopReason | None
    paused: bool
    priority: int
    not_before: float
    deadline: float | None
    window_spec: str | None
    n_rows: int
    n_positions: int
    final_epoch: int
    dataset_path: str | None
    manifest_sha256: str | None
    error: str | None
    created_at: float
    started_at: float | None
    finalizing_at: float | None
    ended_at: float | None
    # expected of all answers of a row together, None where nothing is known
    answer_tokens: float | None = None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row that has every column of the jobs table."""
        values = {field.name: row._mapping[field.name] for field in fields(cls)}
        values["params"] = orjson.loads(values["params"])
        values["state"] = JobState(values["state"])
        if values["stop_reason"] is not None:
            values["stop_reason"] = StopReason(values["stop_reason"])
        return cls(**values)

    def log_context(self) -> dict[str, Any]:
        """Return what a log line about this job carries."""
        return {"job": self.public_id, "model": self.model}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """One shard as SQL has it."""

    id: int
    job_id: int
    parent_id: int | None
    pos_start: int
    pos_end: int
    n_rows: int
    state: ShardState
    epoch: int
    attempts: int
    lost: int
    deaths: int
    lease_owner: str | None
    lease_expires_at: float | None
    not_before: float
    enqueued_at: float | None
    rows_done: int
    last_error: str | None
    failures: int
    lease_seconds: float | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row that has every column of the shards table."""
        values = {field.name: row._mapping[field.name] for field in fields(cls)}
        values["state"] = ShardState(values["state"])
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One worker's right to compute one shard, and all it needs to do so."""

    shard_id: int
    epoch: int
    owner: str
    job_id: int
    job_public_id: str
    tenant_id: str
    pos_start: int
    pos_end: int
    # claims so far, this one included
    attempts: int
    # leases of this shard that ran out
    lost: int
    # engine deaths seen while its rows were active
    deaths: int
    # times that it ended in a way that a repetition may not mend
    failures: int = 0
    input_sha256: str
    index_path: str | None
    model: str
    model_sha256: str
    params: dict[str, Any]

    @property
    def seq(self) -> int:
        """The number that names the shard's files; unique in the database."""
        return self.shard_id

    @property
    def n_rows(self) -> int:
        """Rows of the shard."""
        return self.pos_end - self.pos_start

    def log_context(self) -> dict[str, Any]:
        """Return what a log line about this lease carries."""
        return {"job": self.job_public_id, "shard": self.shard_id, "epoch": self.epoch}


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What a worker learns from renewing a lease."""

    state: JobState
    paused: bool
    # others have nothing to do and could compute what is untouched
    give_up: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the job still wants this shard computed now."""
        return self.state is JobState.RUNNING and not self.paused


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalLease:
    """One finaliser's right to write one job's dataset."""

    epoch: int
    owner: str
    job: JobRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """The finished rows of a shard that is not finished."""

    shard_id: int
    epoch: int
    # storage key
    path: str
    n_rows: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSegment:
    """The finished rows of a leaf shard that is not committed, and which rows are the shard's."""

    pos_start: int
    pos_end: int
    # storage key
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """The registered result of one committed shard."""

    shard_id: int
    job_id: int
    epoch: int
    # storage key
    path: str
    n_rows: int
    n_ok: int
    n_err: int
    bytes: int
    sha256: str
    prompt_tokens: int
    completion_tokens: int
    committed_at: float
    cached_tokens: int
    preemptions: int
    copies: int
    # None where nothing was measured
    kv_utilisation: float | None
    sharing_saving: float | None
    n_stop: int
    n_length: int

    @property
    def finish_reasons(self) -> FinishReasons:
        """Why its answers ended."""
        return FinishReasons(stop=self.n_stop, length=self.n_length)

    @property
    def kv(self) -> KVTotals:
        """What its rows did to the KV pool."""
        return KVTotals(
            rows=0 if self.kv_utilisation is None else self.n_ok,
            preemptions=self.preemptions,
            copies=self.copies,
            utilisation=self.kv_utilisation or 0.0,
            sharing_saving=self.sharing_saving or 0.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRecord:
    """One leaf shard in input order: its part, or a range that was never computed."""

    pos_start: int
    pos_end: int
    state: ShardState
    # None exactly where the shard is stopped (or, while the job runs, not yet committed)
    part: PartRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """One worker and its last heartbeat."""

    id: str
    model: str
    slots: int
    device: str
    pool_blocks: int
    version: str
    stats: dict[str, Any]
    # Filled by the database's clock; ignored when a worker sends its heartbeat.
    started_at: float = 0.0
    heartbeat_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is."""

    # shards
    committed: int = 0
    n_rows: int = 0
    # committed, checkpointed and last reported by workers
    rows_done: int = 0
    # of committed shards only
    rows_ok: int = 0
    rows_err: int = 0
    finish_reasons: FinishReasons = UNCOUNTED
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    # of shards that workers hold: rows that ended, their tokens, and those of rows that have not
    rows_in_work: int = 0
    tokens_in_work: int = 0
    tokens_running: int = 0
    kv: KVTotals = UNMEASURED
    # the database's clock when this was read
    now: float = 0.0

    @property
    def generated_tokens(self) -> int:
        """Tokens of answers so far, of rows that are being computed too."""
        return self.completion_tokens + self.tokens_in_work + self.tokens_running

    @property
    def fraction(self) -> float:
        """Share of rows done, 0 to 1."""
        return self.rows_done / self.n_rows if self.n_rows else 1.0
