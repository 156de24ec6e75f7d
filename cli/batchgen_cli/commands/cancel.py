"""`batchgen cancel`: stop jobs for good."""

from __future__ import annotations

from collections.abc import Collection

import click

from batchgen.errors import StoreMismatch
from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import jobs_argument, output_options
from batchgen_cli.references import only_running
from batchgen_cli.transition import apply


@click.command(cls=Command, examples=["batchgen ls -q --state queued | xargs -r batchgen cancel"])
@jobs_argument
@output_options
@pass_app
def command(app: App, jobs: tuple[str, ...]) -> None:
    """Stop jobs for good.

    Rows that have an answer keep it; the others become error rows batch_cancelled. A coordinator
    writes the dataset as for any job; if none runs and no worker holds rows of the job, this
    command writes it. Cancelling a cancelled job changes nothing.

    If several jobs have the name, the one that has not ended is meant; if several have not ended,
    give an id.
    """
    then = None if app.server else lambda ids: _end(app, ids)
    apply(app, jobs, app.service.cancel, find=only_running, then=then)


def _end(app: App, jobs: Collection[int]) -> None:
    """Write the datasets of the stopped jobs that no coordinator and no worker ends."""
    from batchgen_workers.service.ending import end_stopped

    try:
        storage = app.local.storage
    except StoreMismatch:
        app.output.note("This machine does not see the home of the jobs: a coordinator ends them")
        return
    end_stopped(app.settings, app.local.store, storage, jobs)
