"""`batchgen server`: the HTTP API."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_local_app
from batchgen_cli.group import Command
from batchgen_cli.options import insecure_option, server_options, verbose_option


@click.command(
    cls=Command,
    examples=[
        "batchgen server",
        "batchgen server --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem",
    ],
)
@server_options
@insecure_option
@verbose_option
@pass_local_app
def command(app: App) -> None:
    """Serve OpenAI's Batch API under /v1 and the native one under /api/v1, until SIGTERM.

    Every request needs a key; see `batchgen keys`. It computes nothing: coordinator and workers run
    beside it.
    """
    from batchgen.api.server import run_server
    from batchgen_workers.logs import configure_logging

    configure_logging(verbose=app.verbose)
    run_server(app.settings)
