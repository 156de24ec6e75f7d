"""Jobs and workers as JSON: the form of the command's --json and of the HTTP API.

JobView ──► job_json ──► {…} ──► view_of_json ──► JobView

A client turns the JSON into the same view, so what is shown of a job is computed in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from batchgen.calendar.times import rfc3339, seconds_of
from batchgen.core.finish_reasons import FinishReasons
from batchgen.core.kv_totals import KVTotals
from batchgen.core.states import JobState, StopReason
from batchgen.jobs.records.job_records import LOCAL_TENANT, JobRecord, Progress, WorkerRecord
from batchgen.requests.expected import without_expectations
from batchgen.service.views import JobView

if TYPE_CHECKING:
    from pathlib import Path


def job_json(view: JobView) -> dict[str, Any]:
    """Return a job as JSON: its identity, its parameters and its progress."""
    job, progress = view.job, view.progress
    return {
        "id": job.public_id,
        "name": job.name,
        "state": str(job.state),
        "paused": job.paused,
        "stop_reason": job.stop_reason,
        "model": job.model,
        "model_sha256": job.model_sha256,
        "input_sha256": job.input_sha256,
        "params": without_expectations(job.params),
        "priority": job.priority,
        "not_before": rfc3339(job.not_before or None),
        "window": job.window_spec,
        "deadline": rfc3339(job.deadline),
        "rows": {
            "total": view.rows_total,
            "done": view.rows_done,
            "ok": view.rows_ok,
            "failed": view.rows_failed,
            "finish_reasons": dataclasses.asdict(progress.finish_reasons),
        },
        "tokens": {
            "prompt": progress.prompt_tokens,
            "completion": progress.completion_tokens,
            "cached": progress.cached_tokens,
            "in_progress": progress.tokens_in_work + progress.tokens_running,
        },
        "fraction": view.fraction,
        "kv": _kv_json(progress.kv),
        "estimate": None if view.has_ended else _estimate_json(view),
        "waiting_for": view.waiting_for,
        "created_at": rfc3339(job.created_at),
        "started_at": rfc3339(job.started_at),
        "finalizing_at": rfc3339(job.finalizing_at),
        "ended_at": rfc3339(job.ended_at),
        "dataset": str(view.dataset) if view.dataset else None,
        "manifest_sha256": job.manifest_sha256,
        "error": job.error,
    }


def worker_json(worker: WorkerRecord) -> dict[str, Any]:
    """Return a worker as JSON."""
    return {
        **dataclasses.asdict(worker),
        "started_at": rfc3339(worker.started_at),
        "heartbeat_at": rfc3339(worker.heartbeat_at),
    }


def view_of_json(
    value: Mapping[str, Any],
    *,
    workers: Iterable[WorkerRecord] = (),
    dataset: Path | str | None = None,
) -> JobView:
    """Return the view of a job that `job_json` wrote; `dataset` is where this reader finds it."""
    job = _record(value)
    return JobView(
        job=job,
        progress=_progress(value),
        workers=tuple(worker for worker in workers if worker.model == job.model),
        dataset=dataset,
    )


def worker_of_json(value: Mapping[str, Any]) -> WorkerRecord:
    """Return the worker that `worker_json` wrote."""
    names = {field.name for field in dataclasses.fields(WorkerRecord)}
    known = {name: value[name] for name in names if name in value}
    times = {name: seconds_of(value[name]) for name in ("started_at", "heartbeat_at")}
    return WorkerRecord(**{**known, **times})


def _record(value: Mapping[str, Any]) -> JobRecord:
    reason = value["stop_reason"]
    return JobRecord(
        id=0,  # not in a database of this machine
        public_id=value["id"],
        tenant_id=LOCAL_TENANT,
        idem_key=value["id"],
        name=value["name"],
        parent_id=None,
        input_sha256=value["input_sha256"],
        index_path=None,
        model=value["model"],
        model_sha256=value["model_sha256"],
        params=dict(value["params"]),
        state=JobState(value["state"]),
        stop_reason=None if reason is None else StopReason(reason),
        paused=value["paused"],
        priority=value["priority"],
        not_before=seconds_of(value["not_before"]) or 0.0,
        deadline=seconds_of(value["deadline"]),
        window_spec=value["window"],
        n_rows=value["rows"]["total"],
        n_positions=value["rows"]["total"],
        final_epoch=0,
        dataset_path=None,
        manifest_sha256=value["manifest_sha256"],
        error=value["error"],
        created_at=seconds_of(value["created_at"]) or 0.0,
        started_at=seconds_of(value["started_at"]),
        finalizing_at=seconds_of(value["finalizing_at"]),
        ended_at=seconds_of(value["ended_at"]),
        answer_tokens=(value["estimate"] or {}).get("answer_tokens"),
    )


def _progress(value: Mapping[str, Any]) -> Progress:
    rows, tokens, kv = value["rows"], value["tokens"], value["kv"]
    estimate = value["estimate"] or {}
    running = estimate.get("tokens_running", 0)
    measured = kv["utilisation"] is not None
    return Progress(
        n_rows=rows["total"],
        rows_done=rows["done"],
        rows_ok=rows["ok"],
        rows_err=rows["failed"],
        finish_reasons=FinishReasons(**rows["finish_reasons"]),
        prompt_tokens=tokens["prompt"],
        completion_tokens=tokens["completion"],
        cached_tokens=tokens["cached"],
        rows_in_work=estimate.get("rows_in_work", 0),
        tokens_in_work=tokens["in_progress"] - running,
        tokens_running=running,
        kv=KVTotals(
            rows=max(1, rows["ok"]) if measured else 0,
            preemptions=kv["preemptions"],
            copies=kv["copies"],
            utilisation=kv["utilisation"] or 0.0,
            sharing_saving=kv["sharing_saving"] or 0.0,
        ),
        now=seconds_of(estimate.get("now")) or 0.0,
    )


def _estimate_json(view: JobView) -> dict[str, Any]:
    """Return what the remaining time of an unfinished job is estimated from."""
    return {
        "now": rfc3339(view.progress.now),
        "answer_tokens": view.job.answer_tokens,
        "rows_in_work": view.progress.rows_in_work,
        "tokens_running": view.progress.tokens_running,
    }


def _kv_json(kv: KVTotals) -> dict[str, Any]:
    measured = kv.rows > 0
    return {
        "utilisation": kv.utilisation if measured else None,
        "sharing_saving": kv.sharing_saving if measured else None,
        "preemptions": kv.preemptions,
        "copies": kv.copies,
    }
