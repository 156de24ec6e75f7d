"""`batchgen fsck`: check the database and the files against each other."""

from __future__ import annotations

import click

from batchgen.errors import Corrupt
from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.output import Format


@click.command(cls=Command, examples=["batchgen fsck", "batchgen fsck --json"])
@output_options
@pass_app
def command(app: App) -> None:
    """Check the invariants of every job, in the database and on disk.

    Names each violation and exits 1 if there is one. It changes nothing.
    """
    violations = app.service.fsck()
    if app.output.format is Format.JSON:
        found = [{"invariant": one.invariant, "detail": one.detail} for one in violations]
        app.output.document({"ok": not violations, "violations": found})
    for violation in violations:
        if app.output.format is not Format.JSON:
            app.output.data(f"{violation.invariant}  {violation.detail}")
    if violations:
        raise click.exceptions.Exit(Corrupt.exit_code)
    app.output.note("ok: no violation")
