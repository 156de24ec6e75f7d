"""Records that the store takes and returns: jobs, shards, leases, parts, workers."""

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
    """A job as a caller submits it. The store adds ids, times and shards."""

    input_sha256: str
    input_bytes: int
    n_rows: int
    # of its rows, to choose the size of shards; None if not measured
    lengths: RowLengths | None = None
    # the most rows of a shard; None leaves that to `sharding`
    shard_rows: int | None = None
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
    # Two submits with the same key create one job; None is never the same.
    idem_key: str | None = None
    tenant_id: str = LOCAL_TENANT
    # the API key that submits it, None for the command line
    key_id: str | None = None
    # its public id if that is given away before the job exists; None makes one
    public_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job, as stored in SQL."""

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
    # expected for all answers of one row together, None if unknown
    answer_tokens: float | None = None
    # the API key that submitted it, None for the command line
    key_id: str | None = None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row that has every column of the jobs table."""
        columns = row._asdict()  # a hundred rows are shown at once: lookups in a row are slow
        values = {field.name: columns[field.name] for field in fields(cls)}
        values["params"] = orjson.loads(values["params"])
        values["state"] = JobState(values["state"])
        if values["stop_reason"] is not None:
            values["stop_reason"] = StopReason(values["stop_reason"])
        return cls(**values)

    def log_context(self) -> dict[str, Any]:
        """Return the fields of a log line about this job."""
        return {"job": self.public_id, "model": self.model}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """One shard, as stored in SQL."""

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
    """The right of one worker to compute one shard, with all that it needs for that."""

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
    # failures that a repetition may not fix
    failures: int = 0
    input_sha256: str
    index_path: str | None
    model: str
    model_sha256: str
    params: dict[str, Any]

    @property
    def seq(self) -> int:
        """The number in the names of the shard's files; unique in the database."""
        return self.shard_id

    @property
    def n_rows(self) -> int:
        """The number of rows of the shard."""
        return self.pos_end - self.pos_start

    def log_context(self) -> dict[str, Any]:
        """Return the fields of a log line about this lease."""
        return {"job": self.job_public_id, "shard": self.shard_id, "epoch": self.epoch}


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The answer to the renewal of a lease: the state of the job and a request to split."""

    state: JobState
    paused: bool
    # idle workers could compute the rows that have not begun: split the shard
    give_up: bool = False

    @property
    def goes_on(self) -> bool:
        """True while the job needs this shard computed now."""
        return self.state is JobState.RUNNING and not self.paused


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalLease:
    """The right of one finaliser to write the dataset of one job."""

    epoch: int
    owner: str
    job: JobRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """The checkpoint of a shard: its finished rows, before all are finished."""

    shard_id: int
    epoch: int
    # storage key
    path: str
    n_rows: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSegment:
    """The checkpoint of a leaf shard that is not committed, with the positions of the shard."""

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
    # None if nothing was measured
    kv_utilisation: float | None
    sharing_saving: float | None
    n_stop: int
    n_length: int

    @property
    def finish_reasons(self) -> FinishReasons:
        """The numbers of its answers by finish reason."""
        return FinishReasons(stop=self.n_stop, length=self.n_length)

    @property
    def kv(self) -> KVTotals:
        """The KV totals of its rows."""
        return KVTotals(
            rows=0 if self.kv_utilisation is None else self.n_ok,
            preemptions=self.preemptions,
            copies=self.copies,
            utilisation=self.kv_utilisation or 0.0,
            sharing_saving=self.sharing_saving or 0.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRecord:
    """One leaf shard: its positions and its part, if it has one."""

    pos_start: int
    pos_end: int
    state: ShardState
    # None if the shard is stopped (or, while the job runs, not yet committed)
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
    # Set by the database's clock; ignored in the heartbeat of a worker.
    started_at: float = 0.0
    heartbeat_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a job."""

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
    # of leased shards: finished rows, their tokens, and the tokens of rows being computed
    rows_in_work: int = 0
    tokens_in_work: int = 0
    tokens_running: int = 0
    kv: KVTotals = UNMEASURED
    # the database's clock when this was read
    now: float = 0.0

    @property
    def generated_tokens(self) -> int:
        """The number of answer tokens so far, also of rows that are being computed."""
        return self.completion_tokens + self.tokens_in_work + self.tokens_running

    @property
    def fraction(self) -> float:
        """The share of rows done, 0 to 1."""
        return self.rows_done / self.n_rows if self.n_rows else 1.0
