"""Describes jobs, workers and engines, as JSON and as text."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from batchgen.core.numerics import ENDPOINT, kernels_named
from batchgen_cli.formats import count, duration, moment, percent, rate, short_id
from batchgen_cli.output import Column

if TYPE_CHECKING:
    from batchgen.core.engine_stats import EngineInfo
    from batchgen.core.kv_totals import KVTotals
    from batchgen.jobs.records.job_records import Progress, WorkerRecord
    from batchgen.service import JobView, Rates

JOB_COLUMNS = (
    Column(title="JOB", value=lambda view: short_id(view.job.public_id)),
    Column(title="NAME", value=lambda view: view.job.name or "-"),
    Column(title="STATE", value=lambda view: view.state),
    Column(title="MODEL", value=lambda view: view.job.model),
    Column(title="DONE", value=lambda view: count(view.rows_done), right=True),
    Column(title="ROWS", value=lambda view: count(view.rows_total), right=True),
    Column(title="FAILED", value=lambda view: count(view.rows_failed), right=True),
    Column(title="CUT", value=lambda view: count(view.rows_cut), right=True),
    Column(title="CREATED", value=lambda view: moment(view.job.created_at)),
    Column(title="TOOK", value=lambda view: duration(view.elapsed_seconds), right=True),
)

WORKER_COLUMNS = (
    Column(title="WORKER", value=lambda worker: worker.id),
    Column(title="MODEL", value=lambda worker: worker.model),
    Column(title="DEVICE", value=lambda worker: worker.device),
    Column(title="KERNELS", value=lambda worker: worker.stats.get("kernels") or "-"),
    Column(title="SLOTS", value=lambda worker: count(worker.slots), right=True),
    Column(title="KV BLOCKS", value=lambda worker: count(worker.pool_blocks), right=True),
    Column(
        title="KV USED",
        value=lambda worker: _share(worker, "kv_blocks_used", "kv_blocks"),
        right=True,
    ),
    Column(
        title="PREFIX HITS",
        value=lambda worker: _share(worker, "prefix_hits", "prefix_queries"),
        right=True,
    ),
    Column(
        title="PREEMPTED",
        value=lambda worker: count(worker.stats.get("preemptions", 0)),
        right=True,
    ),
    Column(title="STARTED", value=lambda worker: moment(worker.started_at)),
    Column(title="VERSION", value=lambda worker: worker.version),
)


def progress_json(view: JobView, rates: Rates) -> dict[str, Any]:
    """Return a job as JSON with its speed."""
    from batchgen.service.job_json import job_json

    return {**job_json(view), **dataclasses.asdict(rates)}


def job_text(view: JobView, rates: Rates) -> str:
    """Describe a job, one fact a line."""
    from batchgen.requests.expected import without_expectations

    job = view.job
    params = without_expectations(job.params)
    rows = f"{count(view.rows_done)} of {count(view.rows_total)} done"
    facts = {
        "Job": job.public_id,
        "Name": job.name,
        "State": view.state + (f" ({view.waiting_for})" if view.waiting_for else ""),
        "Model": job.model,
        "Parameters": ", ".join(f"{key}={value}" for key, value in sorted(params.items())),
        "Rows": f"{rows}, {outcomes(view)}",
        "Tokens": _tokens(view.progress),
        "KV pool": _kv_text(view.progress.kv),
        "Speed": _speed(view, rates),
        "Workers": _workers(view),
        "Priority": str(job.priority) if job.priority else None,
        "Not before": moment(job.not_before) if job.not_before else None,
        "Window": job.window_spec,
        "Deadline": moment(job.deadline) if job.deadline else None,
        "Created": moment(job.created_at),
        "Started": moment(job.started_at) if job.started_at else None,
        "Ended": moment(job.ended_at) if job.ended_at else None,
        "Took": duration(view.elapsed_seconds) if view.has_ended else None,
        "Dataset": str(view.dataset) if view.dataset else None,
        "Error": job.error,
    }
    return facts_text(facts)


def outcomes(view: JobView) -> str:
    """Return the number of rows that failed, and of answers that were cut, as text."""
    failed = f"{count(view.rows_failed)} failed"
    return f"{failed}, {count(view.rows_cut)} cut at max_tokens" if view.rows_cut else failed


def facts_text(facts: dict[str, str | None]) -> str:
    """Return one line a fact, with the values aligned; leave out facts without a value."""
    shown = {name: value for name, value in facts.items() if value}
    width = max(len(name) for name in shown) + 2
    return "\n".join(f"{name + ':':<{width}}{value}" for name, value in shown.items())


def _kv_text(kv: KVTotals) -> str | None:
    if not kv.rows:
        return None
    return (
        f"{percent(kv.utilisation)} of its slots filled, {percent(kv.sharing_saving)} of its "
        f"blocks saved by sharing, {count(kv.preemptions)} preemptions, "
        f"{count(kv.copies)} blocks copied"
    )


def _tokens(progress: Progress) -> str:
    text = (
        f"{count(progress.prompt_tokens)} prompt "
        f"({count(progress.cached_tokens)} from the prefix cache), "
        f"{count(progress.completion_tokens)} completion"
    )
    more = progress.tokens_in_work + progress.tokens_running
    return f"{text}, {count(more)} in work" if more else text


def _share(worker: WorkerRecord, part: str, whole: str) -> str:
    total = worker.stats.get(whole, 0)
    return percent(worker.stats.get(part, 0) / total if total else None)


def engine_text(info: EngineInfo) -> str:
    """Describe the number type, the device and the kernels of an engine, or its endpoint."""
    if info.device == ENDPOINT:
        return f"Asking {info.kernels} for {info.kernels_reason}"
    return f"Computing {info.dtype} on {info.device} by " + _kernels(
        info.kernels, info.kernels_reason
    )


def _workers(view: JobView) -> str | None:
    """Describe devices and kernels of a job's workers; None once the job has ended."""
    if view.has_ended:
        return None
    ways = Counter(
        f"{worker.device} by "
        + _kernels(worker.stats.get("kernels", ""), worker.stats.get("kernels_reason", ""))
        for worker in view.workers
    )
    return "; ".join(f"{number} on {way}" for way, number in sorted(ways.items())) or None


def _kernels(name: str, reason: str) -> str:
    named = kernels_named(name) if name else "kernels that it does not name"
    return f"{named} ({reason})" if reason else named


def _speed(view: JobView, rates: Rates) -> str | None:
    if not view.is_running:
        return None
    return ", ".join(
        [
            rate(rates.rows_per_second, "rows"),
            rate(rates.tokens_per_second, "tok"),
            f"KV {percent(rates.kv_utilisation)}",
            f"ETA {duration(rates.eta_seconds)}",
        ]
    )
