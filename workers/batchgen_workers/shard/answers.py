"""Turns rows into engine requests, and the engine's answers into rows of the dataset."""

from __future__ import annotations

import hashlib
import time

import msgspec

from batchgen.core.rows import (
    BadRow,
    Generation,
    GenerationRequest,
    InputRow,
    ResultRow,
    RowError,
)
from batchgen.core.states import StopReason
from batchgen.failpoints import reach
from batchgen.jobs.records.job_records import Lease

STOPPED = {
    StopReason.CANCEL: RowError(
        code="batch_cancelled", message="The job was cancelled before this row was computed."
    ),
    StopReason.EXPIRE: RowError(
        code="batch_expired", message="The job's deadline passed before this row was computed."
    ),
}


def row_seed(job: str, row: int) -> int:
    """Return the seed of a row that sets none, in [0, 2**63); it must never change."""
    digest = hashlib.blake2b(f"{job}/{row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def request_id(job: str, row: int) -> str:
    """Return the id of a row's request; it stays the same if the row is computed again."""
    return f"req_{job}_{row}"


def seeded(job: str, row: InputRow) -> InputRow:
    """Return the row, with a seed of its own if it sets none."""
    if row.params.seed is not None:
        return row
    params = msgspec.structs.replace(row.params, seed=row_seed(job, row.row))
    return msgspec.structs.replace(row, params=params)


def as_request(row: InputRow, key: int, lease: Lease) -> GenerationRequest:
    """Return the engine's request for a row of a leased shard.

    The cache salt is the tenant, so that the time of an answer does not reveal other tenants'
    prompts.
    """
    return GenerationRequest(
        key=key,
        params=row.params,
        messages=row.messages,
        prompt=row.prompt,
        prompt_token_ids=row.prompt_token_ids,
        job=lease.job_public_id,
        cache_salt=lease.tenant_id,
    )


def answered(
    row: InputRow, generation: Generation, *, job: str, model: str, attempt: int
) -> ResultRow:
    """Return the result of a row that the engine ended, with an answer or an error."""
    reach("row.answered")
    return ResultRow(
        row=row.row,
        custom_id=row.custom_id,
        model=model,
        choices=generation.choices if generation.error is None else [],
        usage=generation.usage,
        error=generation.error,
        request_id=request_id(job, row.row),
        attempt=attempt,
        seed=row.params.seed,
        created_at=_now(),
        latency_ms=generation.latency_ms,
        extra=_extra(row),
    )


def refused(
    row: InputRow | BadRow, error: RowError, *, job: str, model: str, attempt: int
) -> ResultRow:
    """Return the error row of a row that was never sent to the engine."""
    return ResultRow(
        row=row.row,
        custom_id=row.custom_id,
        model=model,
        error=row.error if isinstance(row, BadRow) else error,
        request_id=request_id(job, row.row),
        attempt=attempt,
        created_at=_now(),
        extra=_extra(row) if isinstance(row, InputRow) else None,
    )


def bad(row: BadRow, lease: Lease) -> ResultRow:
    """Return the error row of an input line that cannot be used."""
    return refused(
        row, row.error, job=lease.job_public_id, model=lease.model, attempt=lease.attempts
    )


def _extra(row: InputRow) -> str | None:
    return msgspec.json.encode(row.extra).decode() if row.extra else None


def _now() -> int:
    return time.time_ns() // 1000
