"""`batchgen up`: broker, coordinator, server and workers of one machine."""

from __future__ import annotations

import click

from batchgen_cli import background
from batchgen_cli.address import show_address
from batchgen_cli.app import App, pass_local_app
from batchgen_cli.group import Command
from batchgen_cli.options import (
    complete_models,
    engine_options,
    insecure_option,
    port_option,
    verbose_option,
)


@click.command(
    cls=Command,
    examples=["batchgen up --model smollm2-135m", "batchgen up -m smollm2-135m --detach"],
)
@click.option(
    "--model",
    "-m",
    "models",
    metavar="NAME",
    multiple=True,
    required=True,
    shell_complete=complete_models,
    help="A model to serve; each gets a worker of its own.",
)
@click.option(
    "--detach",
    "-d",
    is_flag=True,
    help="Run in the background, with logs/up.log in the home, until `batchgen down`.",
)
@port_option
@click.option("--no-server", is_flag=True, help="Run no HTTP server.")
@click.option("--ready", type=int, hidden=True, help="Descriptor that is told of the start.")
@engine_options
@insecure_option
@verbose_option
@pass_local_app
def command(
    app: App, models: tuple[str, ...], detach: bool, no_server: bool, ready: int | None
) -> None:
    """Run everything on this machine until Ctrl-C: coordinator, HTTP server, a worker per model.

    Starts a broker of its own if BATCHGEN_BROKER_URL names none. Makes a key for the server at the
    first start, and says what an OpenAI client needs. Ends with its terminal, unless --detach is
    given. Only one can run on a home.
    """
    for model in models:
        app.local.model(model)
    if detach:
        background.start(app, models, no_server=no_server)
        return
    from batchgen_workers.service.local_stack import up

    address = ""
    for event in up(app.settings, models, serve=not no_server):
        app.output.note(str(event))
        if event.url and not address:
            address = event.url
            app.local.access.local_key()
            show_address(app, address)
        if ready is not None and (address or no_server):
            background.say_ready(ready, address)
            ready = None
