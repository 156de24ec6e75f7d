"""`batchgen results`: print the path of a dataset, copy it, or write its rows as JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from batchgen.errors import OutputConflict
from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import job_argument, output_options
from batchgen_cli.output import Format
from batchgen_cli.references import newest

PARQUET, JSONL, OPENAI = "parquet", "jsonl", "openai"


@click.command(
    cls=Command,
    examples=[
        "batchgen results nightly -o answers",
        "batchgen results nightly --format jsonl | head -3",
        "batchgen results nightly --format openai -o output.jsonl",
        "batchgen results nightly --partial",
    ],
)
@job_argument
@click.option(
    "--output",
    "-o",
    "out",
    type=click.Path(path_type=Path),
    help="A folder to copy the dataset to; a file for JSON Lines.",
)
@click.option("--partial", is_flag=True, help="What is finished so far; the job may still run.")
@click.option(
    "--format",
    "form",
    type=click.Choice([PARQUET, JSONL, OPENAI]),
    default=PARQUET,
    show_default=True,
    help="openai is the shape of OpenAI's output and error files.",
)
@output_options
@pass_app
def command(app: App, job: str, out: Path | None, partial: bool, form: str) -> None:
    """Print where the results of JOB lie, copy them, or write their rows.

    As Parquet, prints the path of the dataset, with --partial that of each committed part. As
    JSON Lines, writes answered and failed rows in input order to standard output, with --partial
    also those of shards that are not committed yet, a minute after they ended at the latest.
    """
    public_id = newest(app, job)
    if form == PARQUET:
        _parquet(app, public_id, out, partial=partial)
        return
    lines = _lines(app, public_id, form, partial=partial)
    if out is None:
        for line in lines:
            app.output.raw(line)
    else:
        _write_file(lines, out)
        _print_path(app, out)


def _parquet(app: App, public_id: str, out: Path | None, *, partial: bool) -> None:
    if partial:
        if out is not None:
            raise click.UsageError(
                "--partial has no dataset to copy yet. Leave -o out for the paths of the parts, "
                "or take --format jsonl."
            )
        for path in app.service.results.parts(public_id):
            _print_path(app, path)
        return
    folder = app.service.results.dataset(public_id)
    _print_path(app, app.service.results.export(public_id, out) if out else folder)


def _print_path(app: App, path: Path | str) -> None:
    if app.output.format is Format.JSON:
        app.output.event({"path": str(path)})
    else:
        app.output.data(str(path))


def _lines(app: App, public_id: str, form: str, *, partial: bool) -> Iterator[bytes]:
    if form == OPENAI:
        return app.service.results.openai_lines(public_id, errors=None, partial=partial)
    return app.service.results.lines(public_id, partial=partial)


def _write_file(lines: Iterator[bytes], out: Path) -> None:
    from batchgen.storage.storage import writing

    if out.exists():
        raise OutputConflict(f"{out} exists already. Choose another file.")
    with writing(out) as file:
        file.writelines(lines)
