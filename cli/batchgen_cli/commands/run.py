"""`batchgen run`: a prompt file in, a dataset out, with no service running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.endpoints import endpoint_options, registered_for
from batchgen_cli.failures import INTERRUPTED
from batchgen_cli.follow import outcome, say_end
from batchgen_cli.formats import count
from batchgen_cli.group import Command
from batchgen_cli.logs import log_file
from batchgen_cli.options import (
    FILE_HELP,
    engine_options,
    input_options,
    model_option,
    output_options,
)
from batchgen_cli.output import Format
from batchgen_cli.presentation import engine_text
from batchgen_cli.progress import choose_display
from batchgen_cli.sources import open_input

if TYPE_CHECKING:
    from batchgen.core.engine_stats import EngineInfo
    from batchgen.service.endpoints import NewEndpoint
    from batchgen.service.views import JobView
    from batchgen_workers.service.local import LocalProgress


@click.command(
    cls=Command,
    short_help="Run a prompt file here and now.",
    help=f"Run a prompt file here and now, with no service. {FILE_HELP} Writes the dataset to the "
    "folder OUT: answers in OUT/data, failed rows in OUT/errors. Interrupted and run again with "
    "the same file and parameters, it goes on with the rows that are not finished; with others it "
    "refuses. Exits 0 if every row has an answer, 1 if not.",
    examples=[
        "batchgen run prompts.jsonl -o answers --model smollm2-135m",
        "batchgen run prompts.jsonl -o answers -m smollm2-135m -p temperature=0 -p max_tokens=64",
        "cat prompts.jsonl | batchgen run - -o answers -m smollm2-135m --device cuda:0",
        "batchgen run prompts.jsonl -o answers -m qwen3 --endpoint http://localhost:8000",
    ],
)
@click.argument("file", metavar="FILE")
@click.option(
    "--output",
    "-o",
    "out",
    metavar="OUT",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the dataset; until the run has ended, its work lies in OUT/.batchgen.",
)
@model_option
@endpoint_options
@input_options
@click.option("--name", metavar="TEXT", help="A name for the dataset's card.")
@engine_options
@output_options
@pass_app
def command(app: App, file: str, out: Path, endpoint: NewEndpoint | None, **asked: Any) -> None:
    """Run the job, show its progress, print how it ended."""
    from batchgen.library.folder_run import FolderRun
    from batchgen.service.submission import Submission

    with (
        registered_for(app, asked["model"], endpoint) as models,
        closing(FolderRun(out, app.settings, models=models)) as run,
    ):
        with open_input(file) as source:
            run.open(source, Submission(**asked), notice=app.output.warn)
        try:
            view = run.finish(lambda view: _watched(app, view, log=run.home))
        except KeyboardInterrupt:
            _say_interrupted(app, run.status(), source=file)
            raise click.exceptions.Exit(INTERRUPTED) from None
    _report(app, view, run.out)
    raise click.exceptions.Exit(outcome(view))


@contextmanager
def _watched(app: App, view: JobView, *, log: Path) -> Iterator[Callable[[LocalProgress], None]]:
    """Show a job while it is computed, and send the log to a file in the folder `log`."""
    from batchgen.library.local_view import local_view
    from batchgen.service import Meter

    _say_start(app, view)
    meter = Meter()
    said: list[EngineInfo] = []
    with log_file(log, verbose=app.verbose), choose_display(app.output) as display:

        def show(progress: LocalProgress) -> None:
            if progress.engine is not None and not said:
                said.append(progress.engine)
                app.output.note(engine_text(progress.engine))
            seen = local_view(progress)
            display.update(seen, meter.observe(seen))

        yield show


def _say_start(app: App, view: JobView) -> None:
    if view.rows_done:
        done, total = count(view.rows_done), count(view.rows_total)
        app.output.note(f"Going on: {done} of {total} rows are done")
    app.output.note(f"Loading {view.job.model} …")


def _say_interrupted(app: App, view: JobView, *, source: str) -> None:
    done, total = count(view.rows_done), count(view.rows_total)
    again = "The same command with the same input" if source == "-" else "The same command"
    app.output.warn(f"Interrupted: {done} of {total} rows are kept. {again} goes on with the rest.")


def _report(app: App, view: JobView, out: Path) -> None:
    from batchgen.service.job_json import job_json

    if app.output.format is Format.JSON:
        app.output.event({**job_json(view), "output": str(out)})
        return
    say_end(view, app.output, out)
    app.output.data(str(out))
