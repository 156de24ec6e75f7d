"""Build the record of a job from its dataset when there is no database any more."""

from __future__ import annotations

from pathlib import Path

from batchgen.core.states import JobState
from batchgen.dataset.manifest import Manifest, read_manifest
from batchgen.jobs.records.job_records import LOCAL_TENANT, JobRecord, Progress
from batchgen.service.views import JobView


def view_of_dataset(folder: Path) -> JobView:
    """Return the job of a finished dataset; raise Corrupt if the folder is not a dataset."""
    manifest = read_manifest(folder)
    totals = manifest.totals
    progress = Progress(
        n_rows=totals.rows,
        rows_done=totals.rows,
        rows_ok=totals.ok,
        rows_err=totals.errors,
        finish_reasons=totals.finish_reasons,
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
        cached_tokens=totals.cached_tokens,
        kv=totals.kv,
    )
    return JobView(job=job_of_dataset(manifest), progress=progress, dataset=folder)


def job_of_dataset(manifest: Manifest) -> JobRecord:
    """Return the job of a manifest. The manifest does not say when it started or ended."""
    meta = manifest.meta
    return JobRecord(
        id=0,  # not in a database
        public_id=meta.job_id,
        tenant_id=LOCAL_TENANT,
        idem_key=meta.job_id,
        name=meta.name,
        parent_id=None,
        input_sha256=meta.input_sha256,
        index_path=None,
        model=meta.model,
        model_sha256=meta.model_sha256,
        params=meta.params,
        state=JobState.COMPLETED,
        stop_reason=None,
        paused=False,
        priority=0,
        not_before=0.0,
        deadline=None,
        window_spec=None,
        n_rows=meta.n_rows,
        n_positions=meta.n_rows,
        final_epoch=0,
        dataset_path=None,
        manifest_sha256=None,
        error=None,
        created_at=meta.created_at,
        started_at=None,
        finalizing_at=None,
        ended_at=None,
    )
