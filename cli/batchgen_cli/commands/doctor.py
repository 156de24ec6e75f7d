"""`batchgen doctor`: check everything batchgen needs."""

from __future__ import annotations

import click

from batchgen.errors import Unavailable
from batchgen_cli.app import App, pass_local_app
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.output import Column, Format

COLUMNS = (
    Column(title="CHECK", value=lambda check: check.name),
    Column(title="RESULT", value=lambda check: str(check.result)),
    Column(title="DETAIL", value=lambda check: check.detail),
)


@click.command(cls=Command, examples=["batchgen doctor", "batchgen doctor --json"])
@output_options
@pass_local_app
def command(app: App) -> None:
    """Check Python, torch, the compiler, the database, its schema, the broker, disk and models.

    Exits 3 if any check fails; a warning is about something that only some commands need.
    """
    from batchgen.service.doctor import examine

    checks = examine(app.settings)
    failed = [check for check in checks if check.failed]
    app.output.table(
        failed if app.output.format is Format.QUIET else checks,
        COLUMNS,
        quiet=lambda check: check.name,
        json=lambda check: check.as_dict(),
        empty="",
    )
    for check in checks:
        if check.remedy:
            app.output.note(f"{check.name}: {check.remedy}")
    if failed:
        raise click.exceptions.Exit(Unavailable.exit_code)
