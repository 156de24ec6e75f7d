"""`batchgen up` in the background: a session of its own, its log in the home.

this process                       the one that stays
  start ───────────────────────────► no terminal, no standard input
  wait ◄──── a byte of the pipe ──── it has the home, and its first process
  say who it is, end               or its end: what it said, its exit status
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from batchgen_cli.app import App

LOG = Path("logs") / "up.log"  # in the home


def start(app: App, models: Sequence[str]) -> None:
    """Start `batchgen up` in the background and return once it has begun; raise Exit if not."""
    from batchgen.service.database import make_home
    from batchgen_workers.service.local_process import environment_of

    make_home(app.settings)
    path = app.settings.home.absolute() / LOG
    path.parent.mkdir(exist_ok=True)
    ready, theirs = os.pipe()
    with path.open("ab") as log, closing(os.fdopen(ready, "rb")) as told:
        began = log.tell()
        process = subprocess.Popen(
            _command(app, models, theirs),
            # the folder stays: paths in the settings may be relative to it
            env={**os.environ, **environment_of(app.settings)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(theirs,),
            start_new_session=True,
        )
        os.close(theirs)
        if not told.read(1):
            click.echo(_since(path, began), err=True, nl=False)
            raise click.exceptions.Exit(process.wait())
    app.output.note(f"batchgen runs in the background (pid {process.pid}). Its log: {path}")
    app.output.note("Stop it with: batchgen down")


def say_ready(descriptor: int) -> None:
    """Tell who started this process that it has begun."""
    os.write(descriptor, b"!")
    os.close(descriptor)


def _command(app: App, models: Sequence[str], descriptor: int) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "batchgen_cli.main", "up"),
        *(word for model in models for word in ("--model", model)),
        *("--ready", str(descriptor)),
        *(["--verbose"] if app.verbose else []),
    ]


def _since(path: Path, began: int) -> str:
    with path.open("rb") as log:
        log.seek(began)
        return log.read().decode(errors="replace")
