"""`batchgen db`: the schema of the database."""

from __future__ import annotations

from typing import Any

import click

from batchgen.errors import SchemaMismatch
from batchgen_cli.app import App, pass_local_app
from batchgen_cli.group import Command
from batchgen_cli.options import output_options


@click.group()
def command() -> None:
    """Upgrade and check the schema of the database."""


@command.command(cls=Command)
@output_options
@pass_local_app
def upgrade(app: App) -> None:
    """Upgrade the schema to the one of this version; do nothing if it is that already.

    A SQLite database in the home folder is created and upgraded without this command.
    """
    from batchgen.service import database

    before, after = database.current(app.settings), database.upgrade(app.settings)
    _report(app, after, {"before": before, "revision": after})
    changed = f"Upgraded from {before or 'empty'} to {after}"
    app.output.note("Already up to date" if before == after else changed)


@command.command(cls=Command)
@output_options
@pass_local_app
def current(app: App) -> None:
    """Print the revision of the database."""
    from batchgen.service import database

    revision = database.current(app.settings)
    _report(app, revision, {"revision": revision})


@command.command(cls=Command)
@output_options
@pass_local_app
def check(app: App) -> None:
    """Exit 3 unless the schema is the one that this version needs."""
    from batchgen.service import database

    revision = database.current(app.settings)
    if revision != database.HEAD:
        raise SchemaMismatch(
            f"The database is at revision {revision or 'none'}, this version needs "
            f"{database.HEAD}. Run `batchgen db upgrade`."
        )
    _report(app, revision, {"revision": revision, "ok": True})


def _report(app: App, revision: str | None, report: dict[str, Any]) -> None:
    shown = revision or "none"
    app.output.record(report, quiet=shown, human=lambda: shown)
