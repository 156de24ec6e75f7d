"""`batchgen coordinator`: start, dispatch and finish jobs."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_local_app
from batchgen_cli.group import Command
from batchgen_cli.options import insecure_option, verbose_option
from batchgen_cli.services import need_broker


@click.command(cls=Command, examples=["batchgen coordinator"])
@insecure_option
@verbose_option
@pass_local_app
def command(app: App) -> None:
    """Start jobs that are due, hand their shards to workers and write their datasets.

    One coordinator is enough; several on one PostgreSQL database do no harm. Waits for a database
    or broker that is unavailable.
    """
    need_broker(app)
    from batchgen_workers.logs import configure_logging
    from batchgen_workers.service.coordinator import run_coordinator

    configure_logging(verbose=app.verbose)
    run_coordinator(app.settings)
