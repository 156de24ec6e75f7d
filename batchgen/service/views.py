"""The view of a job for users: its record, its progress and its workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from batchgen.calendar.times import show_time
from batchgen.calendar.windows import Window
from batchgen.core.states import JobState
from batchgen.errors import InvalidParameter
from batchgen.jobs.records.job_records import JobRecord, Progress, WorkerRecord
from batchgen.settings import Settings


def starts_worker(settings: Settings) -> str:
    """Return the command that starts a worker; without a shared broker this is `batchgen up`."""
    return "batchgen worker" if settings.broker_url else "batchgen up"


EXPECTED_WEIGHT = 4  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """The state of a job at one time."""

    job: JobRecord
    progress: Progress
    # live workers with this job's model
    workers: tuple[WorkerRecord, ...] = field(default=())
    # folder of the finished dataset, or its address on a server; None before there is one
    dataset: Path | str | None = None
    # the command that starts a worker here; see `starts_worker`
    starter: str = "batchgen up"

    @property
    def id(self) -> str:
        """The public id of the job."""
        return self.job.public_id

    @property
    def state(self) -> str:
        """The job's state, or `paused` while it is paused."""
        held = self.job.paused and self.job.state in (JobState.QUEUED, JobState.RUNNING)
        return "paused" if held else str(self.job.state)

    @property
    def is_running(self) -> bool:
        """True while the job is running and not paused."""
        return self.job.state is JobState.RUNNING and not self.job.paused

    @property
    def has_ended(self) -> bool:
        """True if the state of the job is final."""
        return self.job.state.ended

    @property
    def succeeded(self) -> bool:
        """True if the job has a dataset in which every row has an answer.

        This includes a job that was stopped after its last row was answered.
        """
        return self.dataset is not None and self.rows_failed == 0

    @property
    def rows_total(self) -> int:
        """The number of rows of the input."""
        return self.job.n_rows

    @property
    def rows_done(self) -> int:
        """The number of rows that have an answer or an error."""
        return self.rows_total if self.dataset else self.progress.rows_done

    @property
    def tokens_left(self) -> float | None:
        """The expected tokens of the rows without a result, None if unknown.

        The estimate from submission has the weight of EXPECTED_WEIGHT finished rows.
        """
        progress, expected = self.progress, self.job.answer_tokens
        rows = progress.rows_ok + progress.rows_in_work
        weight = EXPECTED_WEIGHT if expected is not None else 0
        if not rows + weight:
            return None
        ended = progress.completion_tokens + progress.tokens_in_work
        mean = ((expected or 0.0) * weight + ended) / (rows + weight)
        left = self.rows_total - self.rows_done
        return max(float(left), left * mean - progress.tokens_running)

    @property
    def fraction(self) -> float:
        """The share of the job that is done, 0 to 1, with the tokens of unfinished rows."""
        done, left = self.progress.generated_tokens, self.tokens_left
        if self.dataset or not done or left is None:
            return self.rows_done / self.rows_total if self.rows_total else 1.0
        return done / (done + left)

    @property
    def rows_ok(self) -> int:
        """The number of rows in committed shards that have an answer."""
        return self.progress.rows_ok

    @property
    def rows_failed(self) -> int:
        """The number of rows with an error; in a dataset, also those never computed."""
        if self.dataset:
            return self.rows_total - self.progress.rows_ok
        return self.progress.rows_err

    @property
    def rows_cut(self) -> int:
        """The number of rows in committed shards whose answer was cut at max_tokens."""
        return self.progress.finish_reasons.length

    @property
    def elapsed_seconds(self) -> float | None:
        """The seconds since the job started, or until it ended; None before it started."""
        if self.job.started_at is None:
            return None
        return max(0.0, (self.job.ended_at or self.progress.now) - self.job.started_at)

    @property
    def waiting_for(self) -> str | None:
        """The reason why no rows are computed now, None if rows are or need not be computed."""
        job, now = self.job, self.progress.now
        if self.has_ended or job.state in (JobState.STOPPING, JobState.FINALIZING):
            return None
        if job.paused:
            return f"waits for `batchgen resume {job.public_id}`"
        if job.not_before > now:
            return f"starts {show_time(job.not_before, timespec='minutes')}"
        if closed := self._closed_until(now):
            return closed
        if not self.workers:
            return f"waits for a worker: {self.starter} --model {job.model}"
        reasons = [str(worker.stats.get("waiting_for") or "") for worker in self.workers]
        return f"waiting for endpoint: {reasons[0]}" if all(reasons) else None

    def _closed_until(self, now: float) -> str | None:
        """Return text that says when the job's window opens, None if it is open or not set."""
        if self.job.window_spec is None:
            return None
        try:
            window = Window.parse(self.job.window_spec)
        except InvalidParameter as error:  # this machine does not know the zone
            return f"its window cannot be read here: {error.message}"
        if window.is_open(now):
            return None
        return f"its window opens {show_time(window.next_open(now), timespec='minutes')}"
