"""`batchgen worker`: compute the shards of one model."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_local_app
from batchgen_cli.group import Command
from batchgen_cli.options import engine_options, insecure_option, model_option, verbose_option
from batchgen_cli.services import need_broker


@click.command(
    cls=Command,
    examples=["batchgen worker --model smollm2-135m", "batchgen worker -m mine --device cuda:1"],
)
@model_option
@engine_options
@insecure_option
@verbose_option
@pass_local_app
def command(app: App, model: str) -> None:
    """Compute the shards of one model until SIGTERM; finished rows are kept.

    Needs the broker and the database that the coordinator uses; waits while they are unavailable.
    """
    app.local.model(model)
    need_broker(app)
    from batchgen_workers.logs import configure_logging
    from batchgen_workers.service.worker import run_worker

    configure_logging(verbose=app.verbose)
    run_worker(app.settings, model)
