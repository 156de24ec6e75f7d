"""`batchgen down`: the end of `batchgen up`."""

from __future__ import annotations

import os
import signal

import click

from batchgen.errors import NotAllowed, NotRunning
from batchgen_cli.app import App, pass_local_app
from batchgen_cli.group import Command
from batchgen_cli.options import verbose_option


@click.command(cls=Command, examples=["batchgen down"])
@verbose_option
@pass_local_app
def command(app: App) -> None:
    """End the `batchgen up` of this home, in the background or not, and wait until it has ended.

    Finished rows are kept; the others are computed again later. Exits 4 if none runs.
    """
    from batchgen_workers.service.home_lock import STACK_LOCK, await_free, holder

    home = app.settings.home
    found = holder(home, STACK_LOCK)
    if found is None:
        raise NotRunning(f"No `batchgen up` runs on {home}.")
    if not found.is_here:
        raise NotAllowed(f"`batchgen up` is {found}. Stop it there.")
    try:
        os.kill(found.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has ended meanwhile
    except PermissionError:
        raise NotAllowed(f"`batchgen up` is {found}, of another user. Ask that user.") from None
    app.output.note(f"Stopping {found} …")
    await_free(home, STACK_LOCK)
    app.output.note("Stopped.")
