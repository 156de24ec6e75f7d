"""The description of the API in OpenAPI's form: docs/openapi.json, which a test keeps true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from batchgen.api.error_schemas import PROBLEM_JSON, ProblemDetails

DESCRIPTION = """\
OpenAI's Batch API lies under /v1, for OpenAI's own clients; everything else under /api/v1. Every
request needs a key: Authorization: Bearer KEY. A key sees what is its tenant's; all else is 404."""


def document_of(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the app."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    for response in _responses(document):
        _name_problem_json(response)
    return document


def _responses(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            yield from operation["responses"].values()


def _name_problem_json(response: dict[str, Any]) -> None:
    """Give an RFC 9457 error its media type; FastAPI writes every model as that of the route."""
    reference = f"#/components/schemas/{ProblemDetails.__name__}"
    for media in response.get("content", {}).values():
        if media.get("schema", {}).get("$ref") == reference:
            response["content"] = {PROBLEM_JSON: media}
            return
