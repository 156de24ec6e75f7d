"""A job as its owner sees it: its record, how far it is, and who works on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from batchgen.calendar.times import show_time
from batchgen.calendar.windows import Window
from batchgen.core.states import JobState
from batchgen.errors import InvalidParameter
from batchgen.jobs.records import JobRecord, Progress, WorkerRecord
from batchgen.settings import Settings


def starts_worker(settings: Settings) -> str:
    """Return the command that starts a worker: one alone needs a broker that others know."""
    return "batchgen worker" if settings.broker_url else "batchgen up"


EXPECTED_WEIGHT = 4  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One look at a job."""

    job: JobRecord
    progress: Progress
    # alive, and of this job's model
    workers: tuple[WorkerRecord, ...] = field(default=())
    # folder of the finished dataset, None before there is one
    dataset: Path | None = None
    # what starts a worker here; see `starts_worker`
    starter: str = "batchgen up"

    @property
    def state(self) -> str:
        """The job's state, or `paused` while it is held back."""
        held = self.job.paused and self.job.state in (JobState.QUEUED, JobState.RUNNING)
        return "paused" if held else str(self.job.state)

    @property
    def is_running(self) -> bool:
        """Whether rows are being computed, as far as SQL knows."""
        return self.job.state is JobState.RUNNING and not self.job.paused

    @property
    def has_ended(self) -> bool:
        """Whether the job will never change again."""
        return self.job.state.ended

    @property
    def succeeded(self) -> bool:
        """Whether the job has a dataset in which every row has an answer.

        A job that was stopped when its last row was answered has one too.
        """
        return self.dataset is not None and self.rows_failed == 0

    @property
    def rows_total(self) -> int:
        """Rows of the input."""
        return self.job.n_rows

    @property
    def rows_done(self) -> int:
        """Rows that have an answer or an error."""
        return self.rows_total if self.dataset else self.progress.rows_done

    @property
    def tokens_left(self) -> float | None:
        """Tokens that the rows without a result will still take; None where nobody can tell.

        What was expected of a row counts as much as a few rows that have ended.
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
        """Share of the job that is done, 0 to 1, with what the rows in work have so far."""
        done, left = self.progress.generated_tokens, self.tokens_left
        if self.dataset or not done or left is None:
            return self.rows_done / self.rows_total if self.rows_total else 1.0
        return done / (done + left)

    @property
    def rows_ok(self) -> int:
        """Rows that have an answer, of committed shards."""
        return self.progress.rows_ok

    @property
    def rows_failed(self) -> int:
        """Rows that have an error; in a dataset, also those that were never computed."""
        if self.dataset:
            return self.rows_total - self.progress.rows_ok
        return self.progress.rows_err

    @property
    def rows_cut(self) -> int:
        """Rows whose answer was cut at max_tokens, of committed shards."""
        return self.progress.finish_reasons.length

    @property
    def elapsed_seconds(self) -> float | None:
        """Seconds since the job started, or that it took; None before it started."""
        if self.job.started_at is None:
            return None
        return max(0.0, (self.job.ended_at or self.progress.now) - self.job.started_at)

    @property
    def waiting_for(self) -> str | None:
        """Why nothing is being computed right now, None while something is or need not be."""
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
        return None

    def _closed_until(self, now: float) -> str | None:
        """Return when the job's window opens, None where it is open or there is none."""
        if self.job.window_spec is None:
            return None
        try:
            window = Window.parse(self.job.window_spec)
        except InvalidParameter as error:  # a zone that this machine does not know
            return f"its window cannot be read here: {error.message}"
        if window.is_open(now):
            return None
        return f"its window opens {show_time(window.next_open(now), timespec='minutes')}"
