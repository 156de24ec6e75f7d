"""Views of jobs, made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchgen.core.finish_reasons import FinishReasons
from batchgen.core.states import JobState
from batchgen.jobs.records.job_records import JobRecord, Progress, WorkerRecord
from batchgen.service import JobView

PUBLIC_ID = "0199a1b2c3d4e5f60123456789abcdef"


def a_worker(**changes: Any) -> WorkerRecord:
    """Return a live worker that serves `tiny`."""
    fields: dict[str, Any] = {
        "id": "host/1",
        "model": "tiny",
        "slots": 4,
        "device": "cpu",
        "pool_blocks": 100,
        "version": "0.1.0",
        "stats": {"generated_tokens": 0, "kv_blocks": 100, "kv_blocks_used": 25},
        "started_at": 1000.0,
        "heartbeat_at": 1000.0,
    }
    return WorkerRecord(**{**fields, **changes})


def a_view(
    *,
    done: int = 0,
    failed: int = 0,
    cut: int = 0,
    now: float = 1000.0,
    tokens: int = 0,
    running: int = 0,
    workers: tuple[WorkerRecord, ...] | None = None,
    dataset: Path | None = None,
    **changes: Any,
) -> JobView:
    """Return a view of a running job of 100 rows that started at 1000.0 seconds."""
    fields: dict[str, Any] = {
        "id": 1,
        "public_id": PUBLIC_ID,
        "tenant_id": "local",
        "idem_key": "k",
        "name": "nightly",
        "parent_id": None,
        "input_sha256": "b" * 64,
        "index_path": None,
        "model": "tiny",
        "model_sha256": "a" * 64,
        "params": {"temperature": 0},
        "state": JobState.RUNNING,
        "stop_reason": None,
        "paused": False,
        "priority": 0,
        "not_before": 0.0,
        "deadline": None,
        "window_spec": None,
        "n_rows": 100,
        "n_positions": 100,
        "final_epoch": 0,
        "dataset_path": None,
        "manifest_sha256": None,
        "error": None,
        "created_at": 990.0,
        "started_at": 1000.0,
        "finalizing_at": None,
        "ended_at": None,
    }
    progress = Progress(
        n_rows=100,
        rows_done=done,
        rows_ok=done - failed,
        rows_err=failed,
        finish_reasons=FinishReasons(stop=done - failed - cut, length=cut),
        completion_tokens=tokens,
        tokens_running=running,
        now=now,
    )
    return JobView(
        job=JobRecord(**{**fields, **changes}),
        progress=progress,
        workers=(a_worker(),) if workers is None else workers,
        dataset=dataset,
    )
