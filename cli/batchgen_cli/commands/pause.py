"""`batchgen pause`: hold jobs back."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import jobs_argument, output_options
from batchgen_cli.transition import apply


@click.command(cls=Command, examples=["batchgen pause nightly"])
@jobs_argument
@output_options
@pass_app
def command(app: App, jobs: tuple[str, ...]) -> None:
    """Hold jobs back until resume.

    Finished rows are kept. Workers drop the rows that they are computing; after resume these are
    computed again.
    """
    apply(app, jobs, app.service.pause)
