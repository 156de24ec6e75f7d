"""Faults 54 to 56 at every route: keys, tenants, ids and names that mean no good."""

from __future__ import annotations

import io
from typing import Any

import pytest

from batchgen.api import rejections
from batchgen.api.openapi import document_of
from batchgen.service.submission import Submission
from tests.support.api import HOOKS_HOST, OURS, Api
from tests.support.batches import CHAT, requests
from tests.support.homes import MODEL, finish, prompts
from tests.support.routes import METHODS, OPEN, Route, routes, unknown

SHARED = {"model"}  # all tenants use the models of one registry
OWNED = ("file_id", "batch_id", "ref", "webhook_id")
NEVER = "never-seen-by-another-tenant"
INJECTIONS = [
    "' OR '1'='1",
    "'; DROP TABLE jobs; --",
    '" OR ""="',
    "1 UNION SELECT digest FROM api_keys",
    "%00",
    "\\",
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "x" * 20_000,
]
# What no answer may show: the inside of a database, of Python, or of the machine.
INSIDE = ("sqlalchemy", "sqlite", "psycopg", "SELECT", "Traceback", 'File "', "root:", "/home")


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every wrong key be told that it is wrong."""
    monkeypatch.setattr(rejections, "BURST", 1e9)


@pytest.fixture
def ids(api: Api) -> dict[str, str]:
    """The things that a tenant owns, by the names of parameters of paths."""
    service = api.service.for_tenant(OURS)
    file = api.ours.post(
        "/v1/files",
        data={"purpose": "batch"},
        files={"file": (f"{NEVER}.jsonl", requests())},
    ).json()
    new = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    batch = api.ours.post("/v1/batches", json={**new, "metadata": {"name": NEVER}}).json()
    job = service.submit(io.BytesIO(prompts(4)), Submission(model=MODEL, name=NEVER))
    finish(api.service, job)
    return {
        "file_id": file["id"],
        "batch_id": batch["id"],
        "ref": job.public_id,
        "row": "0",
        "path": "data/train-00000-of-00001.parquet",
        "webhook_id": service.webhooks.add(f"https://{HOOKS_HOST}/{NEVER}").id,
        "model": MODEL,
    }


def all_routes(api: Api) -> list[Route]:
    found = [route for route in routes(api.app) if route.template not in OPEN]
    assert {"/readyz", "/api/v1/jobs/{ref}"} <= {route.template for route in found}
    return found


def test_no_route_answers_without_a_key(api: Api, ids: dict[str, str]) -> None:
    own = {(route.method, route.template) for route in all_routes(api)}
    for template in {route.template for route in all_routes(api)}:
        for method in METHODS:
            answer = api.anonymous.request(method, Route(method, template).path(ids))
            expected = {401} if (method, template) in own else {401, 405}
            assert answer.status_code in expected, (method, template)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost"},
        {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "localhost"},
        {"x-original-url": "/healthz", "x-rewrite-url": "/healthz"},
        {"x-http-method-override": "OPTIONS"},
        {"authorization": "Bearer null"},
        {"authorization": "Bearer bg_0000000000000000_" + "A" * 43},
        {"cookie": "key=1"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_no_header_is_as_good_as_a_key(
    api: Api, ids: dict[str, str], headers: dict[str, str]
) -> None:
    for route in all_routes(api):
        answer = api.anonymous.request(route.method, route.path(ids), headers=headers)
        assert answer.status_code == 401, str(route)


def test_no_spelling_of_a_path_goes_around_the_key(api: Api, ids: dict[str, str]) -> None:
    for route in all_routes(api):
        path = route.path(ids)
        for spelling in (
            f"/{path}",
            path.upper(),
            path.replace("/v1", "/V1"),
            f"{path}/",
            f"/healthz/..{path}",
            f"/healthz;{path}",
            f"{path}?/healthz",
            path.replace("/", "%2f"),
            f"http://localhost{path}",
        ):
            answer = api.anonymous.request(route.method, f"http://testserver{spelling}")
            assert answer.status_code in (401, 404, 405), (str(route), spelling)


def test_what_is_anothers_is_not_there(api: Api, ids: dict[str, str]) -> None:
    """A stranger's answer is the same, byte by byte, for what is ours and for what is nobody's."""
    for route in all_routes(api):
        if not route.parameters or route.parameters[0] in SHARED:
            continue
        nobodys = {**ids, **{name: unknown(name) for name in ids if name in route.parameters[:1]}}
        first = route.parameters[0]
        found = api.theirs.request(route.method, route.path(ids))
        missing = api.theirs.request(route.method, route.path(nobodys))
        assert found.status_code == missing.status_code == 404, str(route)
        assert without_ids(found.text, found.headers, ids[first]) == without_ids(
            missing.text, missing.headers, nobodys[first]
        )


def without_ids(text: str, headers: Any, found: str) -> str:
    return text.replace(headers["x-request-id"], "").replace(found, "")


def test_no_list_shows_what_is_anothers(api: Api, ids: dict[str, str]) -> None:
    for route in all_routes(api):
        if route.method == "GET" and not route.parameters and route.template not in ENDLESS:
            answer = api.theirs.get(route.template)
            assert answer.status_code in (200, 400), str(route)
            assert NEVER not in answer.text, str(route)
            assert not [name for name in OWNED if ids[name] in answer.text], str(route)
    assert api.ours.get("/api/v1/jobs").json()["data"][0]["id"] == ids["ref"]


ENDLESS = {"/api/v1/events"}


def test_no_id_or_filter_reaches_the_inside(api: Api, ids: dict[str, str]) -> None:
    client, document = api.client(api.key(OURS)), document_of(api.app)
    for route in all_routes(api):
        for given in INJECTIONS:
            for parameter in route.parameters:
                answer = client.request(route.method, route.path({**ids, parameter: given}))
                assert answer.status_code in (400, 404, 405), (str(route), answer.text)
                assert_nothing_inside(answer.text.replace(given, ""))
            for name in filters(document, route):
                answer = client.request(route.method, route.path(ids), params={name: given})
                assert answer.status_code in (200, 400, 404), (str(route), name, answer.text)
                assert_nothing_inside(answer.text.replace(given, ""))


def test_no_key_reaches_the_inside(api: Api) -> None:
    for given in INJECTIONS:
        answer = api.anonymous.get("/readyz", headers={"authorization": f"Bearer {given}"})
        assert answer.status_code == 401
        assert_nothing_inside(answer.text)


def filters(document: dict[str, Any], route: Route) -> list[str]:
    """Return the parameters that a route takes from the query."""
    if route.template in ENDLESS:
        return []
    path = document["paths"].get(route.template.replace(":path", ""), {})
    operation = path.get(route.method.lower(), {})
    return [found["name"] for found in operation.get("parameters", ()) if found["in"] == "query"]


def assert_nothing_inside(text: str) -> None:
    assert not [word for word in INSIDE if word in text], text
