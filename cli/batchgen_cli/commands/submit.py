"""`batchgen submit`: store a prompt file and queue a job on it."""

from __future__ import annotations

from typing import Any

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.follow import watch
from batchgen_cli.formats import count
from batchgen_cli.group import Command
from batchgen_cli.options import FILE_HELP, input_options, model_option, output_options
from batchgen_cli.output import Format
from batchgen_cli.sources import open_input


@click.command(
    cls=Command,
    short_help="Queue a job on a prompt file.",
    help=f"Store a prompt file and queue a job on it. {FILE_HELP} Prints the id of the job, which "
    "is durable once printed.",
    examples=[
        "batchgen submit prompts.jsonl --model smollm2-135m --param temperature=0",
        "batchgen submit prompts.jsonl --model smollm2-135m --window '22:00-06:00 Europe/Berlin'",
        "cat prompts.jsonl | batchgen submit - --model smollm2-135m --watch",
    ],
)
@click.argument("file", metavar="FILE")
@model_option
@input_options
@click.option(
    "--name",
    metavar="TEXT",
    help="A name that commands take in place of the id; of several jobs, the newest has it.",
)
@click.option("--priority", type=int, default=0, help="Jobs with a higher number go first.")
@click.option("--not-before", metavar="TIME", help="Start then: '22:00', '+2h', RFC 3339.")
@click.option("--window", metavar="SPAN", help="Run only then: '22:00-06:00 Europe/Berlin'.")
@click.option("--deadline", metavar="TIME", help="Rows without an answer then become error rows.")
@click.option(
    "--idempotency-key", metavar="KEY", help="Submitting again with the same key adds no job."
)
@click.option("--watch", "-w", "watching", is_flag=True, help="Follow the job until it ends.")
@output_options
@pass_app
def command(app: App, file: str, watching: bool, **asked: Any) -> None:
    """Submit, then print the id or follow the job."""
    from batchgen.service.job_json import job_json
    from batchgen.service.submission import Submission

    submission = Submission(**asked)
    with open_input(file) as source:
        job = app.service.submit(source, submission, notice=app.output.warn)
    if app.output.format is not Format.JSON:
        app.output.data(job.public_id)  # first: what follows may fail, and the job is there
    view = app.service.status(job.public_id)
    if watching:
        watch(app.service, job.public_id, app.output)
    if app.output.format is Format.JSON:
        app.output.document(job_json(view))
    app.output.note(
        f"{count(job.n_rows)} rows, {view.state}. Follow with: batchgen watch {job.public_id}"
    )
