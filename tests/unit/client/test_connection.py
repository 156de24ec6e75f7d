"""Calls over both connections, against a server that is a function."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, cast

import anyio
import httpx2
import pytest

from batchgen.api.errors import STATUSES
from batchgen.client.address import Address
from batchgen.client.async_connection import AsyncConnection
from batchgen.client.attempts import RETRIES
from batchgen.client.bodies import UploadBody
from batchgen.client.calls import Call, get
from batchgen.client.connection import Connection
from batchgen.client.problems import CLASSES
from batchgen.errors import (
    BadLines,
    BatchgenError,
    InvalidInput,
    InvalidParameter,
    JobNotFound,
    KeyRefused,
    LineProblem,
    NotAllowed,
    QuotaExceeded,
    ServerUnavailable,
)

ADDRESS = Address(url="https://server/below", api_key="bg_key")
Server = Callable[[httpx2.Request], httpx2.Response]
Send = Callable[..., Any]
POST: Call[Any] = Call(method="POST", path="/jobs", decode=lambda value: value)


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited between attempts; no time passes."""
    seconds: list[float] = []

    async def wait(time: float) -> None:
        seconds.append(time)

    monkeypatch.setattr("batchgen.client.connection.sleep", seconds.append)
    monkeypatch.setattr("batchgen.client.async_connection.anyio.sleep", wait)
    return seconds


@pytest.fixture(params=["blocking", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    """A function that sends a call to a server over one kind of connection."""

    def blocking(server: Server, call: Call[Any], content: bytes | None = None) -> Any:
        connection = Connection(ADDRESS, transport=httpx2.MockTransport(server))
        body = None if content is None else UploadBody(io.BytesIO(content))
        return connection.send(call, body=body)

    def with_loop(server: Server, call: Call[Any], content: bytes | None = None) -> Any:
        async def run() -> Any:
            connection = AsyncConnection(ADDRESS, transport=httpx2.MockTransport(server))
            body = None if content is None else UploadBody(io.BytesIO(content))
            return await connection.send(call, body=body)

        return anyio.run(run)

    return blocking if request.param == "blocking" else with_loop


def problem(status: int, detail: str = "why", **fields: Any) -> httpx2.Response:
    body = {"status": status, "detail": detail, **fields}
    headers = {"content-type": "application/problem+json"}
    return httpx2.Response(status, json=body, headers=headers)


def test_a_call_carries_the_key_and_its_parameters(send: Send) -> None:
    def server(request: httpx2.Request) -> httpx2.Response:
        assert (
            str(request.url) == "https://server/below/api/v1/jobs?partial=true&limit=3&name=a%26b"
        )
        assert request.headers["authorization"] == "Bearer bg_key"
        return httpx2.Response(200, json={"seen": True})

    answer = send(server, get("/jobs", {"partial": True, "limit": 3, "name": "a&b"}))
    assert answer == {"seen": True}


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        (404, {"code": "job_not_found"}, JobNotFound),
        (409, {"code": "not_allowed"}, NotAllowed),
        (400, {"code": "invalid_input"}, InvalidInput),
        (400, {"code": "a_later_one"}, BatchgenError),
        (403, {"code": "missing_scope"}, KeyRefused),
        (413, {"code": "body_too_large"}, InvalidInput),
    ],
)
def test_an_error_is_the_one_that_a_home_raises(
    send: Send, waited: list[float], status: int, fields: dict[str, str], expected: type
) -> None:
    with pytest.raises(BatchgenError) as caught:
        send(lambda _: problem(status, **fields), get("/jobs/x"))
    assert (type(caught.value), caught.value.message, waited) == (expected, "why", [])


def test_a_refused_key_is_named_by_its_setting(send: Send) -> None:
    with pytest.raises(KeyRefused, match="BATCHGEN_API_KEY"):
        send(lambda _: problem(401, code="invalid_api_key"), get("/jobs/x"))


def test_a_parameter_that_is_wrong_is_named(send: Send) -> None:
    with pytest.raises(InvalidParameter) as caught:
        send(lambda _: problem(400, code="invalid_parameter", param="window"), POST)
    assert caught.value.param == "window"


def test_a_quota_is_named(send: Send, waited: list[float]) -> None:
    answer = problem(429, code="quota_exceeded", param="max_jobs")
    answer.headers["x-should-retry"] = "false"
    with pytest.raises(QuotaExceeded, match="why") as caught:
        send(lambda _: answer, POST)
    assert (caught.value.quota, waited) == ("max_jobs", [])


@pytest.mark.parametrize("remedy", [BadLines.REMEDY, "Give every line an id of its own."])
def test_bad_lines_come_with_their_numbers(send: Send, remedy: str) -> None:
    raised = BadLines(
        [LineProblem(line=3, code="invalid_json", message="no JSON", param=None)], 2, remedy=remedy
    )
    errors = [{"line": 3, "code": "invalid_json", "message": "no JSON", "param": None}]
    answer = problem(400, raised.message, code="bad_lines", errors=errors, total=2)
    with pytest.raises(BadLines) as caught:
        send(lambda _: answer, POST, b"{")
    assert caught.value.message == raised.message
    assert caught.value.problems == raised.problems
    assert caught.value.may_be_error_rows == raised.may_be_error_rows


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_sent_again_with_the_whole_body(
    send: Send, waited: list[float], status: int
) -> None:
    bodies = []

    def server(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        if len(bodies) < 3:
            return problem(status)
        return httpx2.Response(201, json={"id": "x"})

    call = Call(method="POST", path="/jobs", decode=lambda value: value["id"])
    assert send(server, call, b"line\n" * 100_000) == "x"
    assert bodies == [b"line\n" * 100_000] * 3
    assert len(waited) == 2


def test_the_server_says_how_long_to_wait(send: Send, waited: list[float]) -> None:
    answers = [problem(503), problem(429), problem(503), httpx2.Response(200, json=1)]
    for answer, seconds in zip(answers, ("7", "100000", "soon"), strict=False):
        answer.headers["retry-after"] = seconds
    assert send(lambda _: answers.pop(0), POST) == 1
    assert waited[:2] == [7.0, 60.0]
    assert 0 < waited[2] <= 60.0


@pytest.mark.parametrize(
    ("status", "word", "sent"), [(503, "false", 1), (409, "true", RETRIES + 1)]
)
def test_the_server_may_say_whether_it_helps(send: Send, status: int, word: str, sent: int) -> None:
    seen = []

    def server(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        answer = problem(status)
        answer.headers["x-should-retry"] = word
        return answer

    with pytest.raises(BatchgenError):
        send(server, POST)
    assert len(seen) == sent


def test_a_server_that_cannot_be_reached_is_named(send: Send, waited: list[float]) -> None:
    def server(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("Connection refused")

    with pytest.raises(ServerUnavailable, match="https://server/below cannot be reached") as caught:
        send(server, POST)
    assert caught.value.exit_code == 3
    assert len(waited) == RETRIES
    assert waited == sorted(waited)


def test_a_connection_that_breaks_once_costs_nothing(send: Send) -> None:
    broken = [httpx2.RemoteProtocolError("closed"), httpx2.ReadTimeout("silence")]

    def server(request: httpx2.Request) -> httpx2.Response:
        if broken:
            raise broken.pop()
        return httpx2.Response(200, json={"rows": len(request.content)})

    assert send(server, POST, b"12345") == {"rows": 5}


@pytest.mark.parametrize(
    "answer",
    [
        {"status_code": 200, "text": "<html>a portal</html>"},
        {"status_code": 404, "text": "<html>no such page</html>"},
        {"status_code": 302, "headers": {"location": "https://elsewhere/"}},
    ],
)
def test_what_is_no_batchgen_server_is_said(send: Send, answer: dict[str, Any]) -> None:
    """A redirect is not followed: the key is for one server."""

    def server(request: httpx2.Request) -> httpx2.Response:
        assert request.url.host == "server"
        return httpx2.Response(**answer)

    with pytest.raises(ServerUnavailable, match="not as a batchgen server does"):
        send(server, get("/jobs"))


def test_an_error_of_the_prompts_ends_the_upload() -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise InvalidInput("Row 3 is no dict.")

    def server(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=len(request.read()))

    connection = Connection(ADDRESS, transport=httpx2.MockTransport(server))
    with pytest.raises(InvalidInput, match="Row 3"), UploadBody(cast("Any", Broken())) as body:
        connection.send(POST, body=body)


def test_every_error_that_a_server_names_has_its_class_here() -> None:
    ours = {"bad_lines", "invalid_parameter", "quota_exceeded"}  # they carry more than a message
    others = {"file_not_found", "batch_not_found", "webhook_not_found"}  # no call of the client's
    named = {code: kind for kind, _, code in STATUSES if code not in ours | others}
    assert named == CLASSES
