"""`batchgen verify`: compare a dataset with its manifest."""

from __future__ import annotations

from pathlib import Path

import click

from batchgen.errors import Corrupt
from batchgen.io.folders import exists
from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import output_options


@click.command(cls=Command, examples=["batchgen verify nightly", "batchgen verify ./answers"])
@click.argument("dataset", metavar="JOB|FOLDER")
@output_options
@pass_app
def command(app: App, dataset: str) -> None:
    """Compare every file of a dataset with its SHA-256 sum in the manifest.

    Names each file that is missing, changed or extra, and exits 1 if there is one.
    """
    from batchgen.io.verify import verify_dataset

    if exists(Path(dataset)) and Path(dataset).is_dir():
        folder, problems = Path(dataset), verify_dataset(Path(dataset))
    else:
        results = app.service.results
        folder, problems = results.dataset(dataset), results.verify(dataset)
    report = {"dataset": str(folder), "ok": not problems, "problems": problems}
    app.output.record(
        report,
        quiet="\n".join(problems) or str(folder),
        human=lambda: "\n".join(problems) or f"{folder}: ok",
    )
    if problems:
        raise click.exceptions.Exit(Corrupt.exit_code)
