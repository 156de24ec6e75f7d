"""`batchgen ls`: list jobs."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.presentation import JOB_COLUMNS

STATES = [
    "queued",
    "running",
    "stopping",
    "finalizing",
    "completed",
    "cancelled",
    "expired",
    "failed",
]


@click.command(
    cls=Command,
    examples=["batchgen ls --state running", "batchgen ls -q | xargs -r batchgen wait"],
)
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Newest N.")
@output_options
@pass_app
def command(app: App, state: str | None, limit: int) -> None:
    """List jobs, newest first."""
    from batchgen.service.job_json import job_json

    views = app.service.jobs(state=state, limit=limit)
    app.output.table(
        views,
        JOB_COLUMNS,
        quiet=lambda view: view.job.public_id,
        json=job_json,
        empty="No jobs. Submit one with: batchgen submit FILE --model NAME",
    )
