"""/v1/batches: create, list, find and cancel batches."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from batchgen.api.auth import TenantService
from batchgen.api.openai import schemas
from batchgen.api.openai.ids import read_batch, read_file
from batchgen.api.openai.views import batch_json, page, reply
from batchgen.batches.options import BatchOptions
from batchgen.service.batches import PAGE, BatchRequest

router = APIRouter(prefix="/batches", tags=["batches"])


@router.post("", response_model=schemas.Batch)
def create_batch(
    service: TenantService,
    new: schemas.NewBatch,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
    x_stainless_retry_count: Annotated[str | None, Header()] = None,
) -> Response:
    """Create a batch on an uploaded file.

    Its lines are checked soon, and it fails with their numbers if one cannot be used; with
    `on_invalid` of `batchgen` they become error lines. Creates with one `Idempotency-Key` and one
    body give one batch; so does a create that OpenAI's client repeats.
    """
    expires = new.output_expires_after
    request = BatchRequest(
        input_file_id=read_file(new.input_file_id, param="input_file_id"),
        endpoint=new.endpoint,
        completion_window=new.completion_window,
        metadata=new.metadata,
        options=BatchOptions(**new.batchgen.model_dump()) if new.batchgen else BatchOptions(),
        output_seconds=None if expires is None else float(expires.seconds),
        idempotency_key=idempotency_key,
        is_retry=(x_stainless_retry_count or "0") != "0",
    )
    return reply(batch_json(service.batches.create(request)))


@router.get("", response_model=schemas.BatchList)
def list_batches(
    service: TenantService,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = 20,
) -> Response:
    """Return batches, newest first."""
    last = None if after is None else read_batch(after)
    return reply(page(service.batches.list(after=last, limit=limit + 1), limit, batch_json))


@router.get("/{batch_id}", response_model=schemas.Batch)
def retrieve_batch(service: TenantService, batch_id: str) -> Response:
    """Return a batch."""
    return reply(batch_json(service.batches.get(read_batch(batch_id))))


@router.post("/{batch_id}/cancel", response_model=schemas.Batch)
def cancel_batch(service: TenantService, batch_id: str) -> Response:
    """Cancel a batch. What is finished is kept, the other lines become error lines."""
    return reply(batch_json(service.batches.cancel(read_batch(batch_id))))
