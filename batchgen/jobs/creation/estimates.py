"""Estimate the time of a row of a new job from its input and from reports of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, func, select

from batchgen.core.row_lengths import RowLengths
from batchgen.database.clock import is_recent
from batchgen.database.tables import jobs, totals, workers

#: The time of a prompt token relative to an answer token: prompts are computed in large batches.
PROMPT_WEIGHT = 0.25
#: Expected tokens of an answer if there is neither a limit nor a measurement.
ANSWER_TOKENS = 256.0
#: Expected weighted tokens per second of a worker without measurement, by kind of device.
RATES = {"cpu": 250.0, "cuda": 4000.0}
MEASURED = 10.0  # seconds of work; with less, a worker's counters are not used
ALIVE = 60.0  # seconds since the last heartbeat of a live worker, at most
JOBS_SEEN = 20  # the latest jobs of a model that have answers, which are averaged
JOBS_LOOKED_AT = 200  # the latest jobs of a model, of which some may have no answer yet
WORKERS_SEEN = 100  # the latest workers of a model


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The expected time and tokens of a job's rows, and the number of workers for them."""

    # seconds of one worker for a row in a full batch; 0 if unknown
    row_seconds: float
    # live workers of the model
    workers: int
    # of all answers of one row together; None if unknown
    answer_tokens: float | None = None
    # of the prompt of one row; 0 if unknown
    prompt_tokens: float = 0.0

    def tokens_of(self, n_rows: int) -> int:
        """Return the expected tokens of so many rows, prompts and answers; 0 if unknown."""
        return round(n_rows * (self.prompt_tokens + (self.answer_tokens or 0.0)))


def estimate(connection: Connection, model: str, lengths: RowLengths | None) -> Estimate:
    """Return the estimate for rows of these lengths on the workers of the model."""
    is_alive = is_recent(workers.c.heartbeat_at, ALIVE).label("is_alive")
    columns = (workers.c.device, workers.c.stats, is_alive)
    found = connection.execute(
        select(*columns)
        .where(workers.c.model == model)
        .order_by(workers.c.heartbeat_at.desc())
        .limit(WORKERS_SEEN)
    ).all()
    alive = sum(worker.is_alive for worker in found)
    if lengths is None:
        return Estimate(row_seconds=0.0, workers=alive)
    answer = lengths.answer_tokens
    if answer is None:
        answer = _answers_seen(connection, model) or ANSWER_TOKENS
    tokens = PROMPT_WEIGHT * lengths.prompt_tokens + answer
    device = found[0].device if found else "cpu"
    rate = measured_rate([orjson.loads(row.stats) for row in found]) or default_rate(device)
    return Estimate(
        row_seconds=tokens / rate,
        workers=alive,
        answer_tokens=answer,
        prompt_tokens=lengths.prompt_tokens,
    )


def measured_rate(stats: Sequence[Mapping[str, Any]]) -> float | None:
    """Return weighted tokens per second of one worker, None if none has worked long enough."""
    told = [each for each in stats if each.get("busy_seconds", 0.0) >= MEASURED]
    tokens = sum(
        PROMPT_WEIGHT * each.get("prompt_tokens", 0) + each.get("generated_tokens", 0)
        for each in told
    )
    return tokens / sum(each["busy_seconds"] for each in told) if tokens else None


def default_rate(device: str) -> float:
    """Return the weighted tokens per second that are assumed for a kind of device."""
    return RATES.get(device.partition(":")[0], RATES["cpu"])


def _answers_seen(connection: Connection, model: str) -> float | None:
    """Return the mean tokens of a row's answers in the latest jobs of a model."""
    newest = select(jobs.c.id).where(jobs.c.model == model).order_by(jobs.c.id.desc())
    looked_at = newest.limit(JOBS_LOOKED_AT).subquery()
    latest = (
        select(totals.c.completion_tokens, totals.c.n_ok)
        .join(looked_at, looked_at.c.id == totals.c.job_id)
        .where(totals.c.n_ok > 0)
        .order_by(totals.c.job_id.desc())
        .limit(JOBS_SEEN)
        .subquery()
    )
    tokens, rows = connection.execute(
        select(func.sum(latest.c.completion_tokens), func.sum(latest.c.n_ok))
    ).one()
    return float(tokens) / float(rows) if rows else None
