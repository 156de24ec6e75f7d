"""Records as OpenAI's JSON, in the shapes of `schemas`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import orjson
from fastapi import Response

from batchgen.api.openai.ids import show_batch, show_file
from batchgen.batches.batch_records import BatchError, BatchRecord, BatchStatus
from batchgen.batches.file_records import FileRecord
from batchgen.jobs.records.outcomes import Outcome
from batchgen.models.record import ModelRecord

Record = TypeVar("Record")


def reply(value: Any) -> Response:
    """Return an answer with this JSON."""
    return Response(orjson.dumps(value), media_type="application/json")


def page(
    records: Sequence[Record], limit: int, view: Callable[[Record], dict[str, Any]]
) -> dict[str, Any]:
    """Return a page of records, of which there is one more than `limit` if a page follows."""
    data = [view(record) for record in records[:limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(records) > limit,
    }


def file_json(file: FileRecord) -> dict[str, Any]:
    """Return a file. Results of a batch that goes on are `uploaded`, and not counted."""
    return {
        "id": show_file(file.id),
        "object": "file",
        "bytes": file.bytes or 0,
        "created_at": int(file.created_at),
        "expires_at": _second(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "uploaded" if file.bytes is None else "processed",
        "status_details": None,
    }


def model_json(model: ModelRecord) -> dict[str, Any]:
    """Return a model."""
    return {
        "id": model.name,
        "object": "model",
        "created": int(datetime.fromisoformat(model.created_at).timestamp()),
        "owned_by": "batchgen",
    }


def batch_json(batch: BatchRecord) -> dict[str, Any]:
    """Return a batch."""
    outcome = batch.outcome
    return {
        "id": show_batch(batch.id),
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": _errors(batch),
        "input_file_id": show_file(batch.input_file_id),
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": _shown_if(batch.has_results and batch.completed, batch.output_file_id),
        "error_file_id": _shown_if(batch.has_results and batch.failed, batch.error_file_id),
        **_moments(batch),
        "request_counts": {
            "total": outcome.total if outcome else 0,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "usage": _usage(outcome) if outcome else None,
        "metadata": batch.metadata,
        "batchgen": {
            **asdict(batch.options),
            "output_file_id": _shown_if(batch.job_id, batch.output_file_id),
            "error_file_id": _shown_if(batch.job_id, batch.error_file_id),
        },
    }


def _moments(batch: BatchRecord) -> dict[str, int | None]:
    """Return the times that a batch has come to, in seconds."""
    outcome, status = batch.outcome, batch.status
    is_cancelled = status in (BatchStatus.CANCELLING, BatchStatus.CANCELLED)
    finalizing = None if outcome is None or is_cancelled else outcome.finalizing_at
    moments = {
        "created_at": batch.created_at,
        "in_progress_at": batch.in_progress_at,
        "expires_at": batch.expires_at,
        "finalizing_at": finalizing,
        "cancelling_at": batch.cancelling_at,
    }
    for ended in ("completed", "failed", "expired", "cancelled"):
        moments[f"{ended}_at"] = batch.ended_as(BatchStatus(ended))
    return {name: _second(moment) for name, moment in moments.items()}


def _errors(batch: BatchRecord) -> dict[str, Any] | None:
    errors = batch.errors
    if batch.status is BatchStatus.FAILED and batch.outcome is not None:
        message = batch.outcome.error or "The job failed."
        errors = (BatchError(code="server_error", message=message),)
    if not errors:
        return None
    return {"object": "list", "data": [msgspec.to_builtins(error) for error in errors]}


def _usage(outcome: Outcome) -> dict[str, Any]:
    return {
        "input_tokens": outcome.prompt_tokens,
        "input_tokens_details": {"cached_tokens": outcome.cached_tokens},
        "output_tokens": outcome.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
    }


def _shown_if(condition: object, file_id: str) -> str | None:
    return show_file(file_id) if condition else None


def _second(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
