"""`batchgen cancel`: stop jobs for good."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import jobs_argument, output_options
from batchgen_cli.transition import apply


@click.command(cls=Command, examples=["batchgen ls -q --state queued | xargs batchgen cancel"])
@jobs_argument
@output_options
@pass_app
def command(app: App, jobs: tuple[str, ...]) -> None:
    """Stop jobs for good.

    Rows that have an answer keep it; the others become error rows batch_cancelled, and the
    dataset is written as for any job.
    """
    apply(app, jobs, app.service.cancel)
