"""Records of batches, and the eight states that OpenAI's clients know.

validating ─► in_progress ─► finalizing ─► completed | expired
    │              └───────► cancelling ─► cancelled
    └─► failed | cancelled
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import orjson

from batchgen.batches.options import BatchOptions
from batchgen.core.states import JobState, StopReason
from batchgen.jobs.records.outcomes import Outcome

if TYPE_CHECKING:
    from sqlalchemy import Row


class BatchStatus(StrEnum):
    """The status of a batch, by OpenAI's names."""

    VALIDATING = "validating"  #: Its lines are still to be checked.
    FAILED = "failed"  #: Its lines were refused, or its job failed.
    IN_PROGRESS = "in_progress"  #: Its job exists: it waits, or its rows are computed.
    FINALIZING = "finalizing"  #: Every row is final; the results are being written.
    COMPLETED = "completed"  #: Every row was computed, with an answer or an error.
    EXPIRED = "expired"  #: Its time was over; what was finished is kept.
    CANCELLING = "cancelling"  #: It was cancelled, and its job is being ended.
    CANCELLED = "cancelled"  #: It was cancelled; what was finished is kept.


STATUSES: Final = {
    JobState.QUEUED: BatchStatus.IN_PROGRESS,
    JobState.RUNNING: BatchStatus.IN_PROGRESS,
    JobState.STOPPING: BatchStatus.FINALIZING,
    JobState.FINALIZING: BatchStatus.FINALIZING,
    JobState.COMPLETED: BatchStatus.COMPLETED,
    JobState.CANCELLED: BatchStatus.CANCELLED,
    JobState.EXPIRED: BatchStatus.EXPIRED,
    JobState.FAILED: BatchStatus.FAILED,
}
ENDED: Final = frozenset(
    {BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)


class BatchError(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why a batch was refused, in OpenAI's form."""

    code: str
    message: str
    # 1-based line of the file
    line: int | None = None
    # the path in the line, such as body.messages
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch as a caller asks for it, checked, with the model found."""

    input_file_id: str
    endpoint: str
    # as the caller wrote it, such as 24h, and its length in seconds
    completion_window: str
    window_seconds: float
    metadata: dict[str, str] | None = None
    options: BatchOptions = field(default_factory=BatchOptions)
    model: str
    # the end of the batch, if the options give one
    deadline: float | None = None
    not_before: float = 0.0
    # seconds after their creation at which the output files are deleted; None keeps them
    output_seconds: float | None = None
    # Creates with the same key and content give one batch.
    idem_key: str | None = None
    # The client says that it asked before: an equal batch of late is the answer.
    is_retry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """One batch, as stored in SQL, with the outcome of its job."""

    id: str
    tenant_id: str
    key_id: str | None
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None
    options: BatchOptions
    model: str
    input_file_id: str
    input_sha256: str | None
    output_file_id: str
    error_file_id: str
    output_seconds: float | None
    job_id: int | None
    errors: tuple[BatchError, ...]
    created_at: float
    expires_at: float
    not_before: float
    in_progress_at: float | None
    failed_at: float | None
    cancelling_at: float | None
    cancelled_at: float | None
    # of its job so far; kept when the job is removed; None before there is one
    outcome: Outcome | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from the columns of a batch and those of `outcomes.COLUMNS`."""
        names = {each.name for each in fields(cls)} - {"outcome"}
        values = {name: row._mapping[name] for name in names}
        values["options"] = BatchOptions.decode(row.options)
        values["metadata"] = row.metadata and orjson.loads(row.metadata)
        values["errors"] = tuple(
            msgspec.json.decode(row.errors, type=list[BatchError]) if row.errors else ()
        )
        outcome = None
        if row.ended is not None:
            outcome = msgspec.json.decode(row.ended, type=Outcome)
        elif row.job_id is not None:
            outcome = Outcome.from_row(row)
        return cls(**values, outcome=outcome)

    @property
    def status(self) -> BatchStatus:
        """The status by OpenAI's names."""
        if self.outcome is not None:
            status = STATUSES[self.outcome.state]
            is_cancelled = self.outcome.stop_reason is StopReason.CANCEL
            if status is BatchStatus.FINALIZING and is_cancelled:
                return BatchStatus.CANCELLING
            return status
        if self.failed_at is not None:
            return BatchStatus.FAILED
        return BatchStatus.VALIDATING if self.cancelled_at is None else BatchStatus.CANCELLED

    @property
    def has_ended(self) -> bool:
        """True if the status is final."""
        return self.status in ENDED

    @property
    def has_results(self) -> bool:
        """True if there is a dataset: every row has an answer or an error."""
        return self.has_ended and self.outcome is not None and self.status is not BatchStatus.FAILED

    @property
    def completed(self) -> int:
        """The number of rows with an answer, in committed shards."""
        return self.outcome.ok if self.outcome else 0

    @property
    def failed(self) -> int:
        """The number of rows with an error; at the end also those that were never computed."""
        if self.outcome is None:
            return 0
        return self.outcome.total - self.outcome.ok if self.has_results else self.outcome.err

    def ended_as(self, status: BatchStatus) -> float | None:
        """Return when the batch ended with this status, None if it did not."""
        if self.status is not status:
            return None
        if self.outcome is not None:
            return self.outcome.ended_at
        return self.failed_at if status is BatchStatus.FAILED else self.cancelled_at

    def log_context(self) -> dict[str, Any]:
        """Return the fields of a log line about this batch."""
        return {"batch": self.id, "model": self.model}
