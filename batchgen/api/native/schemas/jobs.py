"""Jobs, as `batchgen.service.job_json` writes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from batchgen.api.native.schemas.shape import Shape
from batchgen.core.states import JobState, StopReason


class FinishReasonCounts(Shape):
    """Numbers of answers by the reason why they ended."""

    stop: int
    length: int


class RowCounts(Shape):
    """Numbers of rows. `ok` and `failed` count those of committed shards."""

    total: int
    done: int
    ok: int
    failed: int
    finish_reasons: FinishReasonCounts


class TokenCounts(Shape):
    """Numbers of tokens of committed shards, and of those being generated."""

    prompt: int
    completion: int
    cached: int
    in_progress: int


class KVUse(Shape):
    """The use of the KV pool by the job's rows; means are null if nothing was measured."""

    utilisation: float | None
    sharing_saving: float | None
    preemptions: int
    copies: int


class Estimate(Shape):
    """The values from which a client estimates the remaining time."""

    now: datetime | None
    answer_tokens: float | None
    rows_in_work: int
    tokens_running: int


class Job(Shape):
    """A job: its identity, its parameters and its progress."""

    id: str
    name: str | None
    state: JobState
    paused: bool
    stop_reason: StopReason | None
    model: str
    model_sha256: str
    input_sha256: str
    params: dict[str, Any]
    priority: int
    not_before: datetime | None
    window: str | None
    deadline: datetime | None
    rows: RowCounts
    tokens: TokenCounts
    # 0 to 1
    fraction: float
    kv: KVUse
    # null once the job has ended
    estimate: Estimate | None
    # why no rows are computed now
    waiting_for: str | None
    created_at: datetime
    started_at: datetime | None
    finalizing_at: datetime | None
    ended_at: datetime | None
    # the path of the results on this server, null before there is a dataset
    dataset: str | None
    manifest_sha256: str | None
    error: str | None


class CreatedJob(Job):
    """A job that was just submitted."""

    # remarks about the rows
    notices: list[str]


class JobList(Shape):
    """Jobs, newest first."""

    data: list[Job]
    has_more: bool
