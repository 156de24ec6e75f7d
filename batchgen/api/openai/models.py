"""/v1/models: the models of the registry."""

from __future__ import annotations

from fastapi import APIRouter, Response

from batchgen.api.auth import TenantService
from batchgen.api.openai import schemas
from batchgen.api.openai.views import model_json, reply

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", response_model=schemas.ModelList)
def list_openai_models(service: TenantService) -> Response:
    """Return the models that batches may name."""
    models = [model_json(model) for model in service.models.list()]
    return reply({"object": "list", "data": models})


@router.get("/{model:path}", response_model=schemas.Model)
def retrieve_openai_model(service: TenantService, model: str) -> Response:
    """Return a model. Its name may have slashes."""
    return reply(model_json(service.model(model)))
