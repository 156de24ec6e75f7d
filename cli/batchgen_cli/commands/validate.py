"""`batchgen validate`: check a prompt file without submitting it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from batchgen.core.dialects import Dialect
from batchgen.errors import BadLines, UnknownModel
from batchgen.spelling import Spelling
from batchgen_cli.app import App, pass_app
from batchgen_cli.formats import count
from batchgen_cli.group import Command
from batchgen_cli.options import FILE_HELP, complete_models, output_options, param_option
from batchgen_cli.output import Format
from batchgen_cli.sources import open_input

if TYPE_CHECKING:
    from batchgen.inputs.ingest import ValidationReport


@click.command(
    cls=Command,
    short_help="Check a prompt file without submitting it.",
    help=f"Check a prompt file without submitting it. {FILE_HELP} Names every bad line with its "
    "number; exits 2 if there is one.",
    examples=["batchgen validate prompts.jsonl", "cat prompts.jsonl | batchgen validate - --json"],
)
@click.argument("file", metavar="FILE")
@click.option(
    "--model",
    "-m",
    metavar="NAME",
    shell_complete=complete_models,
    help="The model that is to answer, whichever the lines name; where it is imported, answers "
    "must fit its context.",
)
@param_option
@output_options
@pass_app
def command(app: App, file: str, model: str | None, params: dict[str, Any]) -> None:
    """Validate and report."""
    from batchgen.inputs.ingest import validate
    from batchgen.requests.lines import check_defaults

    context, dialect = _bounds(app, model)
    check_defaults(params, context, dialect)
    with open_input(file) as source:
        report = validate(source, defaults=params, model=model, context=context, dialect=dialect)
    if model and (said := report.other_models.notice(model)):
        app.output.warn(said)
    _show(app, file, report)
    if report.n_bad:
        raise click.exceptions.Exit(BadLines.exit_code)


def _bounds(app: App, model: str | None) -> tuple[int | None, Dialect | None]:
    """Return the most tokens that the model holds, and its dialect; None if they are unknown."""
    if model is None:
        return None, None
    models = app.service.models
    try:
        found = models.get(model)
        endpoint = found.as_dict().get("endpoint")
        return found.max_length, Dialect(endpoint["dialect"]) if endpoint else None
    except UnknownModel:
        if Spelling(models.names()).meant(model):
            raise
        return None, None  # the other checks of the lines need no model


def _show(app: App, file: str, report: ValidationReport) -> None:
    if app.output.format is Format.JSON:
        app.output.document(
            {
                "file": file,
                "ok": report.n_bad == 0,
                "rows": report.n_rows,
                "bad": report.n_bad,
                "ended_early": report.ended_early,
                "problems": [dataclasses.asdict(problem) for problem in report.problems],
            }
        )
        return
    for problem in report.problems:
        quiet = app.output.format is Format.QUIET
        app.output.data(str(problem.line) if quiet else str(problem))
    # A line may have two problems: it cannot be used, and another line has its id.
    if hidden := report.n_bad - len({problem.line for problem in report.problems}):
        app.output.note(f"… and {count(hidden)} more")
    if report.ended_early:
        app.output.note(f"Line {count(report.n_rows)} is too long: what follows was not read.")
    bad = f"{count(report.n_bad)} bad" if report.n_bad else "all usable"
    app.output.note(f"{file}: {count(report.n_rows)} rows, {bad}")
