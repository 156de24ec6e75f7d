"""Starts `batchgen up` in the background: in a session of its own, with its log in the home.

this process                       background process
  start ───────────────────────────► no terminal, no standard input
  wait ◄──── its address in a pipe ─ it holds the home, and its server is started
  print its pid, end                 or the pipe is closed: it failed; print its log and exit alike
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from batchgen_cli.address import show_address
from batchgen_cli.app import App

READY = "ready "
LOG = Path("logs") / "up.log"  # in the home


def start(app: App, models: Sequence[str], *, no_server: bool) -> None:
    """Start `batchgen up` in the background and return once it is ready; raise Exit if it fails."""
    from batchgen.service.database import make_home
    from batchgen_workers.service.local_process import environment_of

    make_home(app.settings)
    path = app.settings.home.absolute() / LOG
    path.parent.mkdir(exist_ok=True)
    receiver, sender = os.pipe()
    with path.open("ab") as log, closing(os.fdopen(receiver, "rb")) as ready:
        log_start = log.tell()
        process = subprocess.Popen(
            _command(app, models, no_server, sender),
            # the current folder stays, because paths in the settings may be relative to it
            env={**os.environ, **environment_of(app.settings)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(sender,),
            start_new_session=True,
        )
        os.close(sender)
        if not (said := ready.read().decode()):
            click.echo(_log_from(path, log_start), err=True, nl=False)
            raise click.exceptions.Exit(process.wait())
    app.output.note(f"batchgen runs in the background (pid {process.pid}). Its log: {path}")
    app.output.note("Stop it with: batchgen down")
    if url := said.removeprefix(READY):
        show_address(app, url)


def say_ready(descriptor: int, url: str) -> None:
    """Report to the process that started this one that it is ready, and where its server is."""
    os.write(descriptor, f"{READY}{url}".encode())
    os.close(descriptor)


def _command(app: App, models: Sequence[str], no_server: bool, descriptor: int) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "batchgen_cli.main"),
        *("--home", str(app.settings.home), "up"),  # it goes before BATCHGEN_URL
        *(word for model in models for word in ("--model", model)),
        *("--ready", str(descriptor)),
        *(["--no-server"] if no_server else []),
        *(["--verbose"] if app.verbose else []),
    ]


def _log_from(path: Path, start: int) -> str:
    with path.open("rb") as log:
        log.seek(start)
        return log.read().decode(errors="replace")
