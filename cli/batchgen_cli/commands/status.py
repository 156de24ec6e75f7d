"""`batchgen status`: one job, as it stands."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import job_argument, output_options
from batchgen_cli.presentation import job_text, progress_json
from batchgen_cli.references import newest


@click.command(cls=Command, examples=["batchgen status nightly", "batchgen status 0199a1 --json"])
@job_argument
@output_options
@pass_app
def command(app: App, job: str) -> None:
    """Show one job: state, rows, speed, times. -q prints its state."""
    from batchgen.service import Meter

    view = app.service.status(newest(app, job))
    rates = Meter().observe(view)
    app.output.record(
        progress_json(view, rates), quiet=view.state, human=lambda: job_text(view, rates)
    )
