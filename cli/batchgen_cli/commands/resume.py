"""`batchgen resume`: let paused jobs go on."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import jobs_argument, output_options
from batchgen_cli.transition import apply


@click.command(cls=Command, examples=["batchgen resume nightly"])
@jobs_argument
@output_options
@pass_app
def command(app: App, jobs: tuple[str, ...]) -> None:
    """Let paused jobs go on."""
    apply(app, jobs, app.service.resume)
