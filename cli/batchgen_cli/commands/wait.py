"""`batchgen wait`: return when jobs have ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.failures import TIMED_OUT
from batchgen_cli.follow import PATIENCE, POLL_INTERVAL, look, outcome
from batchgen_cli.group import Command
from batchgen_cli.options import jobs_argument, output_options
from batchgen_cli.output import Format
from batchgen_cli.references import newest

if TYPE_CHECKING:
    from batchgen.service import JobView


@click.command(
    cls=Command,
    examples=["batchgen wait nightly && echo done", "batchgen wait 0199a1 --timeout 3600"],
)
@jobs_argument
@click.option(
    "--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait at most this long."
)
@output_options
@pass_app
def command(app: App, jobs: tuple[str, ...], timeout: float | None) -> None:
    """Wait until every JOB has ended.

    Exits 0 if every row of every JOB has an answer, even if it was cancelled; 1 if not; 124 if
    --timeout ran out.
    """
    from batchgen.service.job_json import job_json

    ids = [newest(app, job) for job in jobs]
    give_up = float("inf") if timeout is None else time.monotonic() + timeout
    views = []
    for public_id in ids:
        while not (view := _look(app, public_id, give_up)).has_ended:
            left = give_up - time.monotonic()
            if left <= 0:
                app.output.note(f"Job {public_id} is still {view.state} after {timeout:g} s")
                raise click.exceptions.Exit(TIMED_OUT)
            time.sleep(min(POLL_INTERVAL, left))
        views.append(view)
        if app.output.format is not Format.JSON:
            app.output.data(
                public_id if app.output.format is Format.QUIET else f"{public_id}  {view.state}"
            )
    if app.output.format is Format.JSON:
        app.output.document([job_json(view) for view in views])
    raise click.exceptions.Exit(max(outcome(view) for view in views))


def _look(app: App, job: str, give_up: float) -> JobView:
    patience = max(0.0, min(PATIENCE, give_up - time.monotonic()))
    return look(app.service, job, app.output, patience=patience)
