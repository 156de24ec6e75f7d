"""`batchgen rm`: remove jobs, their files and their rows in the database."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import jobs_argument, output_options
from batchgen_cli.output import Format
from batchgen_cli.references import only


@click.command(
    cls=Command,
    examples=["batchgen rm nightly", "batchgen ls -q --state cancelled | xargs -r batchgen rm"],
)
@jobs_argument
@output_options
@pass_app
def command(app: App, jobs: tuple[str, ...]) -> None:
    """Remove jobs that have ended, with their parts and datasets, and inputs that no job uses.

    A cancelled job counts as ended once no worker holds rows of it. Interrupted, the same command
    goes on. Folders that `results -o` and `run -o` made are yours and stay.

    A name given to several jobs is refused: an id has to say which.
    """
    ids = [only(app, job) for job in jobs]
    for public_id in ids:
        app.service.remove(public_id)
        if app.output.format is not Format.JSON:
            app.output.data(public_id)
    app.service.finish_removals()
    if app.output.format is Format.JSON:
        app.output.document({"removed": ids})
