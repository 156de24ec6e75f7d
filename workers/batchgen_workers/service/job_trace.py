"""Writes the trace of a job that has ended, from the times that SQL keeps of its stages."""

from __future__ import annotations

from itertools import pairwise

from batchgen.jobs.records.job_records import JobRecord
from batchgen.telemetry.tracing import Stage, record_job, record_stage


def trace_job(job: JobRecord) -> None:
    """Write the job, and each stage that it has been through, one after the other."""
    if job.ended_at is None:
        return
    about: dict[str, str | int] = {"model": job.model, "rows": job.n_rows, "state": job.state.value}
    record_job(
        Stage(
            job=job.public_id,
            name="job",
            began=job.created_at,
            ended=job.ended_at,
            attributes=about,
        )
    )
    for (name, began), (_, ended) in pairwise(_moments(job)):
        record_stage(Stage(job=job.public_id, name=name, began=began, ended=ended))


def _moments(job: JobRecord) -> list[tuple[str, float]]:
    """Return the stages that a job entered, each with its time, and its end."""
    moments = [
        ("wait", job.created_at),
        ("compute", job.started_at),
        ("finalize", job.finalizing_at),
        ("end", job.ended_at),
    ]
    return [(name, moment) for name, moment in moments if moment is not None]
