"""Every error has a shape, a status and a request id, and shows nothing of the inside."""

from __future__ import annotations

import logging
import re

import pytest
from fastapi import APIRouter, Depends
from pydantic import BaseModel

from batchgen.api.auth import ADMIN, TenantService, authenticated
from batchgen.errors import (
    BatchgenError,
    Corrupt,
    DatabaseUnavailable,
    InvalidParameter,
    JobNotFound,
    NotAllowed,
    UnknownModel,
)
from tests.support.api import Api

REQUEST_ID = re.compile("req_[0-9a-f]{32}")
SECRET = "SELECT secret FROM somewhere"


class Body(BaseModel):
    number: int


def add_route(api: Api, error: Exception) -> None:
    """Add routes under both prefixes that raise an error."""
    router = APIRouter(dependencies=[Depends(authenticated)])

    @router.get("/raise")
    def fail() -> None:
        raise error

    @router.post("/body")
    def take(body: Body) -> int:
        return body.number

    @router.get("/tenant")
    def tenant(service: TenantService) -> str:
        return service.tenant

    @router.delete("/admin", dependencies=[ADMIN])
    def remove() -> None: ...

    api.app.include_router(router, prefix="/v1/test")
    api.app.include_router(router, prefix="/api/v1/test")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (JobNotFound("No job."), 404, "job_not_found"),
        (UnknownModel("No model."), 404, "model_not_found"),
        (NotAllowed("Not now."), 409, "not_allowed"),
        (InvalidParameter("Not 7.", param="n"), 400, "invalid_parameter"),
        (DatabaseUnavailable(SECRET), 503, "unavailable"),
        (Corrupt(SECRET), 500, "internal_error"),
        (BatchgenError(SECRET), 500, "internal_error"),
        (RuntimeError(SECRET), 500, "internal_error"),
        (PermissionError(13, "Permission denied", SECRET), 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_has_the_shape_of_its_api(
    api: Api, error: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    add_route(api, error)
    with caplog.at_level(logging.ERROR):
        theirs = api.ours.get("/v1/test/raise")
        native = api.ours.get("/api/v1/test/raise")
    assert theirs.status_code == native.status_code == status
    assert theirs.headers["content-type"] == "application/json"
    assert theirs.json()["error"].keys() == {"message", "type", "param", "code"}
    assert theirs.json()["error"]["param"] == getattr(error, "param", None)
    assert native.headers["content-type"] == "application/problem+json"
    problem = native.json()
    assert theirs.json()["error"]["code"] == problem["code"] == code
    assert theirs.json()["error"]["message"] == problem["detail"]
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert problem["request_id"] == native.headers["x-request-id"]
    assert all(REQUEST_ID.fullmatch(answer.headers["x-request-id"]) for answer in (theirs, native))
    assert SECRET not in theirs.text + native.text
    logged = [record for record in caplog.records if record.name == "batchgen.api.errors"]
    assert len(logged) == (2 if status >= 500 else 0)
    if status == 503:
        assert theirs.headers["retry-after"] == native.headers["retry-after"] == "5"


def test_a_body_that_does_not_fit_is_refused_without_being_repeated(api: Api) -> None:
    add_route(api, RuntimeError())
    answer = api.ours.post("/v1/test/body", json={"number": SECRET})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "number"
    assert SECRET not in answer.text
    empty = api.ours.post("/v1/test/body", json={})
    untyped = api.ours.post("/v1/test/body", content=b'{"number": 7}')
    for param, refused in (("number", empty), ("body", untyped)):
        assert refused.json()["error"]["message"] == MESSAGES[param]
    assert api.ours.post("/api/v1/test/body", content=b"{", headers=JSON).status_code == 400


JSON = {"content-type": "application/json"}
MESSAGES = {
    "number": "The parameter 'number' is needed.",
    "body": "'body' must be a JSON object; is Content-Type application/json?",
}


def test_an_unknown_path_has_the_shape_of_its_api(api: Api) -> None:
    theirs = api.ours.post("/v1/chat/completions", json={}).json()["error"]
    assert theirs["code"] == "not_found"
    assert "computed in batches, not at once" in theirs["message"]
    native = api.ours.get("/api/v1/nothing")
    assert (native.status_code, native.json()["title"]) == (404, "Not Found")


def test_a_key_opens_what_its_scopes_say(api: Api) -> None:
    add_route(api, RuntimeError())
    body = {"number": 7}
    reader, submitter = api.ours_with("read"), api.ours_with("submit")
    assert reader.get("/v1/test/tenant").json() == "ours"
    assert api.theirs.get("/v1/test/tenant").json() == "theirs"
    assert reader.post("/v1/test/body", json=body).status_code == 403
    assert submitter.post("/v1/test/body", json=body).json() == 7
    refused = submitter.get("/v1/test/tenant")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_scope")
    assert submitter.delete("/v1/test/admin").status_code == 403
    assert api.ours.delete("/v1/test/admin").status_code == 200


def test_a_key_is_needed_and_nothing_else_helps(api: Api) -> None:
    add_route(api, RuntimeError())
    key = api.key()
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    for given in (
        {},
        {"authorization": ""},
        {"authorization": f"Basic {key}"},
        {"authorization": f"Bearer {wrong}"},
        {"authorization": "Bearer "},
        {"x-api-key": key},
    ):
        answer = api.anonymous.get("/v1/test/tenant", headers=given)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "invalid_api_key"
    assert api.client(key).get("/v1/test/tenant").status_code == 200
    service = api.service.access
    service.keys.revoke(service.keys.list(tenant="ours")[0].id)
    assert api.client(key).get("/v1/test/tenant").status_code == 401
