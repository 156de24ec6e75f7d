"""Moving several jobs to another state, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from batchgen_cli.app import App
from batchgen_cli.output import Format
from batchgen_cli.presentation import job_json

if TYPE_CHECKING:
    from batchgen.service import JobView


def apply(app: App, jobs: Sequence[str], move: Callable[[str], JobView]) -> None:
    """Move each job and print it; every name is looked up before the first one moves."""
    ids = [app.service.job(job).public_id for job in jobs]
    views = [move(public_id) for public_id in ids]
    if app.output.format is Format.JSON:
        app.output.document([job_json(view) for view in views])
        return
    for view in views:
        quiet = app.output.format is Format.QUIET
        app.output.data(view.job.public_id if quiet else f"{view.job.public_id}  {view.state}")
