"""Answers of the native API, written without a second check of what the service layer made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from fastapi import Response

from batchgen.service.job_json import job_json
from batchgen.service.views import JobView

ROOT: Final = "/api/v1"


def reply(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer with this JSON."""
    return json_reply(orjson.dumps(value), status=status, headers=headers)


def json_reply(
    text: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer with this JSON text."""
    return Response(
        text, status_code=status, headers=dict(headers or {}), media_type="application/json"
    )


def job_shown(view: JobView) -> dict[str, Any]:
    """Return a job as callers see it: `dataset` is a path of the API, never one of the server."""
    shown = job_json(view)
    return {**shown, "dataset": f"{job_path(view)}/results" if shown["dataset"] else None}


def job_path(view: JobView) -> str:
    """Return the path of a job in the API."""
    return f"{ROOT}/jobs/{view.job.public_id}"


def page(items: Sequence[Any], limit: int) -> dict[str, Any]:
    """Return a page of `items`, of which there is one more than `limit` if there is a next page."""
    return {"data": items[:limit], "has_more": len(items) > limit}
