"""Build the view of a job that runs in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from batchgen import __version__
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.service import JobView

if TYPE_CHECKING:
    from batchgen_workers.service.local import LocalProgress


def local_view(local: LocalProgress) -> JobView:
    """Return the job with its only worker. Counters are current, not those of a heartbeat."""
    engine = local.engine
    worker = WorkerRecord(
        id="local",
        model=local.job.model,
        slots=1,
        device=engine.device if engine else "",
        pool_blocks=engine.num_blocks if engine else 0,
        version=__version__,
        stats=msgspec.to_builtins(local.stats) if local.stats else {},
        heartbeat_at=local.progress.now,
    )
    return JobView(job=local.job, progress=local.progress, workers=(worker,))
