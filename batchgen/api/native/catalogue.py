"""Routes that show the models, the workers and the usage of the tenant."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from fastapi import APIRouter, Response

from batchgen.api.auth import TenantService
from batchgen.api.native.replies import reply
from batchgen.api.native.schemas.catalogue import ModelList, UsageList, WorkerList
from batchgen.models.record import ModelRecord
from batchgen.service.job_json import worker_json

router = APIRouter()

#: Fields of a model that callers see; `path` and `files` are the server's own.
MODEL_FIELDS = (
    *("name", "architecture", "dtype", "max_length", "chat_template", "sha256", "created_at"),
)


@router.get("/models", tags=["models"], response_model=ModelList)
def list_registered_models(service: TenantService) -> Response:
    """Return the models that jobs may name."""
    return reply({"data": [model_shown(model) for model in service.models.list()]})


@router.get("/workers", tags=["workers"], response_model=WorkerList)
def list_workers(service: TenantService) -> Response:
    """Return the workers whose heartbeat is fresh. All tenants share them."""
    return reply({"data": [worker_json(worker) for worker in service.workers()]})


@router.get("/usage", tags=["usage"], response_model=UsageList)
def list_usage(service: TenantService) -> Response:
    """Return what the ended jobs of the tenant have used, by key and model."""
    found = [asdict(record) for record in service.access.usage.list(tenant=service.tenant)]
    for record in found:
        del record["tenant_id"]
    return reply({"data": found})


def model_shown(model: ModelRecord) -> dict[str, Any]:
    """Return a model as callers see it."""
    return {
        **{name: getattr(model, name) for name in MODEL_FIELDS},
        "source": _without_folder(model.source),
    }


def _without_folder(source: str) -> str:
    """Return the source of a model; of a path on the server only its last name."""
    return PurePath(source).name if source.startswith(("/", ".", "~")) else source
