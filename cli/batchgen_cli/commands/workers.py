"""`batchgen workers`: the workers that are alive."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.presentation import WORKER_COLUMNS


@click.command(cls=Command, examples=["batchgen workers", "batchgen workers --json"])
@output_options
@pass_app
def command(app: App) -> None:
    """List the workers whose heartbeat is fresh."""
    from batchgen.service.job_json import worker_json

    app.output.table(
        app.service.workers(),
        WORKER_COLUMNS,
        quiet=lambda worker: worker.id,
        json=worker_json,
        empty=f"No workers. Start one with: {app.service.starter} --model NAME",
    )
