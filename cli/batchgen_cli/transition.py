"""Moves several jobs to another state, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from batchgen_cli.app import App
from batchgen_cli.output import Format
from batchgen_cli.references import newest

if TYPE_CHECKING:
    from batchgen.jobs.records.job_records import JobRecord
    from batchgen.service import JobView

Find = Callable[[App, str], str]


def apply(
    app: App,
    jobs: Sequence[str],
    move: Callable[[str], JobView],
    *,
    find: Find = newest,
    then: Callable[[Collection[int]], None] | None = None,
) -> None:
    """Look up all jobs with `find`, then move each with `move`, then print them.

    `then` is called with the internal ids of the moved jobs before they are printed.
    """
    before = [app.service.job(find(app, job)) for job in jobs]
    for record in before:
        _say_unchanged(app, record, move(record.public_id))
    if then is not None:
        then([record.id for record in before])
    views = [app.service.status(record.public_id) for record in before]
    if app.output.format is Format.JSON:
        from batchgen.service.job_json import job_json

        app.output.document([job_json(view) for view in views])
        return
    for view in views:
        quiet = app.output.format is Format.QUIET
        app.output.data(view.job.public_id if quiet else f"{view.job.public_id}  {view.state}")


def _say_unchanged(app: App, before: JobRecord, view: JobView) -> None:
    if (before.state, before.paused) == (view.job.state, view.job.paused):
        app.output.note(f"Job {before.public_id} is {view.state} already")
