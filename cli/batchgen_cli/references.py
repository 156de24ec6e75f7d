"""Finds the job that a JOB on the command line means.

If several jobs have the name, the newest is meant, and a warning names it. A command that cannot be
undone refuses a name that several jobs have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchgen.errors import JobNotFound, NotAllowed
from batchgen_cli.app import App
from batchgen_cli.formats import moment

if TYPE_CHECKING:
    from batchgen.jobs.records.job_records import JobRecord

LISTED = 5  # jobs named in a message


def newest(app: App, ref: str) -> str:
    """Return the id of the newest job that `ref` names; warn if it names others too.

    Raises JobNotFound.
    """
    return _id_with_warning(app, ref, app.service.find(ref))


def only_running(app: App, ref: str) -> str:
    """Return the id of the only job named `ref` that has not ended, or of the newest if all have.

    Raises JobNotFound, and NotAllowed if several have not ended.
    """
    found = app.service.find(ref)
    running = [job for job in found if not job.state.ended]
    if len(running) > 1:
        raise _ambiguous(ref, running)
    return _id_with_warning(app, ref, found, running[0] if running else found[0])


def only(app: App, ref: str) -> str:
    """Return the id of the only job that `ref` names; raise JobNotFound, NotAllowed for several."""
    try:
        found = app.service.find(ref)
    except JobNotFound:
        return app.service.removable(ref)  # a job whose removal was interrupted, or is done
    if len(found) > 1:
        raise _ambiguous(ref, found)
    return found[0].public_id


def _id_with_warning(
    app: App, ref: str, found: Sequence[JobRecord], meant: JobRecord | None = None
) -> str:
    meant = meant or found[0]
    if len(found) > 1:
        which = "newest" if meant is found[0] else "one that has not ended"
        app.output.warn(
            f"{ref} names {len(found)} jobs; this is the {which}, {meant.public_id} of "
            f"{moment(meant.created_at)}. The others go by their ids: batchgen ls"
        )
    return meant.public_id


def _ambiguous(ref: str, found: Sequence[JobRecord]) -> NotAllowed:
    listed = "\n".join(
        f"  {job.public_id}  {job.state}  {moment(job.created_at)}" for job in found[:LISTED]
    )
    more = f"\n  … and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return NotAllowed(
        f"{ref} names {len(found)} jobs, and this cannot be undone. Name one by its id:\n"
        f"{listed}{more}"
    )
