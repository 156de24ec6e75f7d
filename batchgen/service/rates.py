"""Compute the speed and the remaining time of a job from repeated views of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.service.views import JobView

TOKENS_SPAN = 30.0  # seconds over which the speed is measured
ROWS_SPAN = 300.0  # seconds; rows of equal length end in waves, which must not change the forecast
SHORTEST = 2.0  # seconds; a shorter difference is not used


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The speed and forecast of one job; values are None while unknown."""

    rows_per_second: float | None = None
    # generated tokens
    tokens_per_second: float | None = None
    # share of the KV blocks of its workers in use, 0 to 1
    kv_utilisation: float | None = None
    eta_seconds: float | None = None


class Meter:
    """Measures one job. The first view gives averages since its start, later ones recent rates.

    (now, rows done)    (now, tokens)
         t0   40             t0   900        rate = (last - first) / (t_last - t_first)
         t1   55             t1  1400
    """

    def __init__(self) -> None:
        self._rows: deque[tuple[float, float]] = deque()
        # {worker id: [(heartbeat, tokens generated)]}: counters change only with a heartbeat
        self._tokens: dict[str, deque[tuple[float, float]]] = {}
        # [(now, tokens generated)] of the job, as reported with its leases
        self._generated: deque[tuple[float, float]] = deque()

    def observe(self, view: JobView) -> Rates:
        """Add one view and return the current rates."""
        if not view.is_running:
            self._rows.clear()
            self._tokens.clear()
            self._generated.clear()
            return Rates()
        _append(self._rows, view.progress.now, view.rows_done, ROWS_SPAN)
        rows = _slope(self._rows)
        if rows is None:
            rows = _average(view.rows_done, view.elapsed_seconds)
        return Rates(
            rows_per_second=rows,
            tokens_per_second=self._tokens_per_second(view),
            kv_utilisation=kv_utilisation(view.workers),
            eta_seconds=None if view.waiting_for else self._eta(view, rows),
        )

    def _eta(self, view: JobView, rows_per_second: float | None) -> float | None:
        """Return the remaining seconds: from tokens, or from rows once half of them are done."""
        generated = view.progress.generated_tokens
        _append(self._generated, view.progress.now, generated, ROWS_SPAN)
        left = view.rows_total - view.rows_done
        if rows_per_second and view.rows_done >= left:
            return left / rows_per_second
        speed = _steady(self._generated) or _average(generated, view.elapsed_seconds)
        if speed and view.tokens_left is not None:
            return view.tokens_left / speed
        return left / rows_per_second if rows_per_second else None

    def _tokens_per_second(self, view: JobView) -> float | None:
        slopes = []
        for worker in view.workers:
            generated = worker.stats.get("generated_tokens")
            if not isinstance(generated, int | float):
                continue
            samples = self._tokens.setdefault(worker.id, deque())
            _append(samples, worker.heartbeat_at, generated, TOKENS_SPAN)
            if (slope := _slope(samples)) is not None:
                slopes.append(slope)
        if slopes:
            return sum(slopes)
        return _average(view.progress.generated_tokens, view.elapsed_seconds)


def kv_utilisation(workers: tuple[WorkerRecord, ...]) -> float | None:
    """Return the share of KV blocks in use over all `workers`, None if none has reported."""
    pairs = [_kv_blocks(worker.stats) for worker in workers]
    total = sum(blocks for _, blocks in pairs)
    return sum(used for used, _ in pairs) / total if total else None


def _kv_blocks(stats: Mapping[str, Any]) -> tuple[float, float]:
    return float(stats.get("kv_blocks_used") or 0), float(stats.get("kv_blocks") or 0)


def _append(samples: deque[tuple[float, float]], now: float, value: float, span: float) -> None:
    if samples and now == samples[-1][0]:
        return
    if samples and (now < samples[-1][0] or value < samples[-1][1]):
        samples.clear()  # the clock was set back, or the counter restarted
    samples.append((now, value))
    while now - samples[0][0] > span and len(samples) > 2:
        samples.popleft()


def _slope(samples: deque[tuple[float, float]]) -> float | None:
    if not samples or samples[-1][0] - samples[0][0] < SHORTEST:
        return None
    (first, start), (last, end) = samples[0], samples[-1]
    return (end - start) / (last - first)


def _steady(samples: deque[tuple[float, float]]) -> float | None:
    """Return the slope of a count that grows in steps, None while its span is too short."""
    return _slope(samples) if samples[-1][0] - samples[0][0] >= TOKENS_SPAN else None


def _average(value: float, seconds: float | None) -> float | None:
    return value / seconds if seconds and value else None
