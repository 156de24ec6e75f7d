"""`batchgen watch`: follow a job until it ends."""

from __future__ import annotations

import click

from batchgen_cli import follow
from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import job_argument, output_options
from batchgen_cli.references import newest


@click.command(cls=Command, examples=["batchgen watch nightly", "batchgen watch 0199a1 --json"])
@job_argument
@output_options
@pass_app
def command(app: App, job: str) -> None:
    """Follow a job until it ends. Ctrl-C detaches; the job goes on.

    Exits 0 if every row has an answer, even if the job was cancelled, and 1 if one has none.
    """
    follow.watch(app.service, newest(app, job), app.output)
