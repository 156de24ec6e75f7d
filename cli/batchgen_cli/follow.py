"""Shows the progress of a job until it ends."""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

import click
import tenacity

from batchgen.errors import DatabaseUnavailable, ServerUnavailable
from batchgen_cli.failures import FAILED, INTERRUPTED
from batchgen_cli.formats import count
from batchgen_cli.output import Output
from batchgen_cli.progress import ProgressDisplay, choose_display

if TYPE_CHECKING:
    from batchgen.service import JobView
    from batchgen_cli.backend import Backend

POLL_INTERVAL = 0.5  # seconds between two looks at a job
PATIENCE = 60.0  # seconds that these may be unavailable or busy while a job is followed
PASSING = (DatabaseUnavailable, ServerUnavailable)


def look(service: Backend, job: str, output: Output, *, patience: float = PATIENCE) -> JobView:
    """Return the view of a job; wait for a database or server that is unavailable or busy.

    Raises DatabaseUnavailable or ServerUnavailable after `patience` seconds.
    """

    def note_once(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            output.note(f"Waiting: {state.outcome.exception()}")

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(PASSING),
        wait=tenacity.wait_fixed(POLL_INTERVAL),
        stop=tenacity.stop_after_delay(patience),
        sleep=lambda seconds: sleep(seconds),
        before_sleep=note_once,
        reraise=True,
    )
    return retrying(service.status, job)


def follow(service: Backend, job: str, display: ProgressDisplay, output: Output) -> JobView:
    """Show a job until it ends and return its last view; the caller handles Ctrl-C."""
    from batchgen.service import Meter

    meter = Meter()
    with display:
        while True:
            view = look(service, job, output)
            display.update(view, meter.observe(view))
            if view.has_ended:
                return view
            sleep(POLL_INTERVAL)


def watch(service: Backend, job: str, output: Output) -> None:
    """Follow a job and exit with its exit code. Ctrl-C ends the command but not the job."""
    try:
        view = follow(service, job, choose_display(output), output)
    except KeyboardInterrupt:
        output.note(f"Detached; the job goes on. Look again with: batchgen watch {job}")
        raise click.exceptions.Exit(INTERRUPTED) from None
    say_end(view, output, view.dataset)
    if view.dataset:
        output.note(f"Dataset: {view.dataset}")
    raise click.exceptions.Exit(outcome(view))


def outcome(view: JobView) -> int:
    """Return the exit code of an ended job: 0 only if every row has an answer."""
    return 0 if view.succeeded else FAILED


def say_end(view: JobView, output: Output, dataset: Path | str | None) -> None:
    """Print how a job ended; `dataset` is the path that the user reads its dataset at."""
    if view.job.error:
        output.note(f"The job failed: {view.job.error}")
    elif view.rows_failed:
        failed, total = count(view.rows_failed), count(view.rows_total)
        output.note(f"{failed} of {total} rows failed; {_errors(view, dataset)}")
    if view.rows_cut:
        output.note(
            f"{count(view.rows_cut)} answers were cut at max_tokens; -p max_tokens=N gives them "
            "more room"
        )


def _errors(view: JobView, dataset: Path | str | None) -> str:
    if isinstance(dataset, str):  # on a server
        return f"see their errors with: batchgen results {view.id} --format jsonl"
    return f"their errors are in {dataset}/errors"
