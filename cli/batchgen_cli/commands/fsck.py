"""`batchgen fsck`: check the database and the files against each other."""

from __future__ import annotations

from typing import Any

import click

from batchgen.errors import Corrupt
from batchgen_cli.app import App, pass_local_app
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.output import Format


@click.command(
    cls=Command,
    examples=["batchgen fsck", "batchgen fsck --adopt", "batchgen fsck --collect --dry-run"],
)
@click.option(
    "--adopt",
    is_flag=True,
    help="First register the parts on disk that a database restored from a backup forgot, and "
    "let shards of running jobs whose part is lost be computed again.",
)
@click.option(
    "--collect",
    is_flag=True,
    help="First remove the files that no job needs; the coordinator does it by itself.",
)
@click.option("--dry-run", is_flag=True, help="With --collect: remove nothing, show what would go.")
@output_options
@pass_local_app
def command(app: App, adopt: bool, collect: bool, dry_run: bool) -> None:
    """Check the invariants of every job, in the database and on disk.

    Names each violation and what to do about it, and exits 1 if there is one. Without an option
    it changes nothing.
    """
    if dry_run and not collect:
        raise click.UsageError("--dry-run goes with --collect.")
    report: dict[str, Any] = {}
    if adopt:
        report["adoption"] = _adopt(app)
    if collect:
        report["garbage"] = _collect(app, dry_run=dry_run)
    _check(app, report)


def _adopt(app: App) -> list[dict[str, str]]:
    found = []
    for finding in app.local.adopt():
        found.append({"outcome": finding.outcome, "key": finding.key, "detail": finding.detail})
        _say(app, finding.outcome, f"{finding.key}: {finding.detail}")
    return found


def _collect(app: App, *, dry_run: bool) -> list[dict[str, Any]]:
    collector = app.local.collector()
    found = []
    for garbage in collector.find() if dry_run else collector.collect():
        found.append({"key": garbage.key, "bytes": garbage.bytes, "removed": not dry_run})
        _say(app, "garbage" if dry_run else "removed", f"{garbage.key} ({garbage.bytes} bytes)")
    for job in collector.unknown():
        app.output.warn(
            f"The database does not know job {job}, which has files here; they are kept, and so "
            f"is every input. Restore a newer backup, or delete parts/{job} and datasets/{job}."
        )
    return found


def _check(app: App, report: dict[str, Any]) -> None:
    violations = app.local.fsck()
    if app.output.format is Format.JSON:
        found = [
            {"invariant": one.invariant, "detail": one.detail, "remedy": one.remedy}
            for one in violations
        ]
        app.output.document({**report, "ok": not violations, "violations": found})
    for violation in violations:
        _say(app, violation.invariant, violation.detail)
    for remedy in dict.fromkeys(f"{one.invariant}  {one.remedy}" for one in violations):
        app.output.note(remedy)
    if violations:
        raise click.exceptions.Exit(Corrupt.exit_code)
    app.output.note("ok: no violation")


def _say(app: App, what: str, text: str) -> None:
    if app.output.format is not Format.JSON:
        app.output.data(f"{what}  {text}")
