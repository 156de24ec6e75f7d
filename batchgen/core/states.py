"""The states of jobs and shards, and the transitions between them."""

from __future__ import annotations

from enum import StrEnum


class InputState(StrEnum):
    """The state of an input."""

    VALIDATING = "validating"  #: Its lines are being read.
    READY = "ready"  #: Stored by content; jobs may use it.
    INVALID = "invalid"  #: Refused; no job may use it.


class JobState(StrEnum):
    """The state of a job; `TRANSITIONS` says what may follow."""

    QUEUED = "queued"  #: Accepted; waits for not_before and its window.
    RUNNING = "running"  #: Its shards are dispatched and claimed.
    STOPPING = "stopping"  #: Cancelled or expired; leased shards are coming back.
    FINALIZING = "finalizing"  #: Every shard is final; the dataset is being written.
    COMPLETED = "completed"  #: Every row was computed; the dataset is immutable.
    CANCELLED = "cancelled"  #: Stopped by a user; rows not computed are error rows.
    EXPIRED = "expired"  #: Stopped by its deadline; rows not computed are error rows.
    FAILED = "failed"  #: Cannot end well (input changed, model gone); no dataset.

    @property
    def ended(self) -> bool:
        """True if the job's state is final."""
        return not TRANSITIONS[self]

    @property
    def accepts_parts(self) -> bool:
        """True if a shard of the job may still be committed."""
        return self in ACCEPTS_PARTS


class ShardState(StrEnum):
    """The state of a shard; `SHARD_TRANSITIONS` says what may follow."""

    READY = "ready"  #: May be claimed.
    LEASED = "leased"  #: One worker owns it until its lease ends.
    COMMITTED = "committed"  #: Its part is registered.
    SPLIT = "split"  #: Replaced by smaller shards with the same rows.
    STOPPED = "stopped"  #: Its job stopped before it was computed.

    @property
    def final(self) -> bool:
        """True if the shard's state is final."""
        return not SHARD_TRANSITIONS[self]


class StopReason(StrEnum):
    """The reason why a job was stopped before its last row."""

    CANCEL = "cancel"  #: A user asked for it.
    EXPIRE = "expire"  #: Its deadline passed.


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.STOPPING, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.STOPPING, JobState.FINALIZING, JobState.FAILED}),
    JobState.STOPPING: frozenset({JobState.FINALIZING, JobState.FAILED}),
    JobState.FINALIZING: frozenset(
        {JobState.COMPLETED, JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED}
    ),
    JobState.COMPLETED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
    JobState.FAILED: frozenset(),
}

SHARD_TRANSITIONS: dict[ShardState, frozenset[ShardState]] = {
    ShardState.READY: frozenset({ShardState.LEASED, ShardState.STOPPED}),
    ShardState.LEASED: frozenset(
        {ShardState.READY, ShardState.COMMITTED, ShardState.SPLIT, ShardState.STOPPED}
    ),
    ShardState.COMMITTED: frozenset(),
    ShardState.SPLIT: frozenset(),
    ShardState.STOPPED: frozenset(),
}

#: In any other state the finaliser would miss a part that is committed.
ACCEPTS_PARTS = (JobState.RUNNING, JobState.STOPPING)

#: {reason why the job was stopped: state after finalizing}
OUTCOME: dict[StopReason | None, JobState] = {
    None: JobState.COMPLETED,
    StopReason.CANCEL: JobState.CANCELLED,
    StopReason.EXPIRE: JobState.EXPIRED,
}
