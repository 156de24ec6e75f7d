"""`batchgen verify`: compare a dataset with its manifest."""

from __future__ import annotations

import os
from pathlib import Path

import click

from batchgen.errors import Corrupt, InvalidParameter
from batchgen.storage.durable_files import exists
from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.references import newest


@click.command(cls=Command, examples=["batchgen verify nightly", "batchgen verify ./answers"])
@click.argument("dataset", metavar="JOB|FOLDER")
@output_options
@pass_app
def command(app: App, dataset: str) -> None:
    """Compare every file of a dataset with its SHA-256 sum in the manifest.

    Names each file that is missing, changed or extra, and exits 1 if there is one.
    """
    from batchgen.dataset.verify import verify_dataset

    if exists(Path(dataset)) and Path(dataset).is_dir():
        dataset, problems = str(Path(dataset)), verify_dataset(Path(dataset))
    elif os.sep in dataset:  # it contains a path separator: a folder is meant
        raise InvalidParameter(f"The folder {dataset} does not exist.", param="dataset")
    else:
        job, results = newest(app, dataset), app.service.results
        dataset, problems = str(results.dataset(job)), results.verify(job)
    report = {"dataset": dataset, "ok": not problems, "problems": problems}
    app.output.record(
        report,
        quiet="\n".join(problems) or dataset,
        human=lambda: "\n".join(problems) or f"{dataset}: ok",
    )
    if problems:
        raise click.exceptions.Exit(Corrupt.exit_code)
