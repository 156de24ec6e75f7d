"""Uploads reach their writer while they arrive, and leave nothing where they break off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import httpx2
import pytest
from fastapi import APIRouter, Depends, Request

from batchgen.api import body_source, limits
from batchgen.api.auth import TenantService, authenticated
from batchgen.api.body_source import read_body
from batchgen.api.limits import MAX_DEPTH, MAX_JSON_BYTES, is_deep
from batchgen.api.uploads import receive
from batchgen.errors import DatabaseUnavailable
from batchgen.tenants.keys import KeyManager
from tests.support.api import Api, serving

FORM = {"content-type": "multipart/form-data; boundary=abc"}
HEAD = b'--abc\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
PURPOSE = b'\r\n--abc\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch'
TAIL = b"\r\n--abc--"


@pytest.fixture
def uploading(api: Api) -> Api:
    """The app with a route for uploads, one for bodies and one for JSON."""
    router = APIRouter(prefix="/v1/test", dependencies=[Depends(authenticated)])

    @router.post("/upload")
    async def upload(request: Request, service: TenantService) -> dict[str, Any]:
        def store(stream: BinaryIO) -> int:
            with service.storage.write("inputs/uploaded") as pending:
                return sum(pending.file.write(chunk) for chunk in iter(stream.read, b""))

        received = await receive(request, fields={"purpose"}, writer=store)
        return {"bytes": received.stored, "name": received.filename, **received.fields}

    @router.post("/body")
    async def body(request: Request) -> int:
        return len(await read_body(request, lambda source: source.read()))

    @router.post("/json")
    def take(body: dict[str, Any]) -> int:
        return len(body)

    api.app.include_router(router)
    return api


def stored(api: Api) -> bytes | None:
    """Return the stored file; nothing else, and nothing half, may lie beside it."""
    folder = api.service.storage.root / "inputs"
    found = {path.name: path.read_bytes() for path in folder.glob("*")}
    assert not found.keys() - {"uploaded"}
    return found.get("uploaded")


def call(
    api: Api,
    path: str,
    chunks: Sequence[bytes],
    headers: Mapping[str, str],
    *,
    ends: bool = True,
    stalls: bool = False,
) -> tuple[int, bytes]:
    """Call the app with a body in chunks; without an end the client goes, or stalls."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    if ends:
        messages[-1]["more_body"] = False
    messages.append({"type": "http.disconnect"})
    sent: list[Any] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"authorization", f"Bearer {api.key()}".encode()),
            *((name.encode(), value.encode()) for name, value in headers.items()),
        ],
    }

    async def receive_message() -> dict[str, Any]:
        if stalls and len(messages) == 1:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(api.app(scope, receive_message, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_the_file_of_a_form_reaches_the_writer(uploading: Api) -> None:
    answer = uploading.ours.post(
        "/v1/test/upload", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"{}\n" * 1000)}
    )
    assert answer.json() == {"bytes": 3000, "name": "a.jsonl", "purpose": "batch"}
    assert stored(uploading) == b"{}\n" * 1000


def test_an_upload_that_breaks_off_leaves_nothing(uploading: Api) -> None:
    status, _ = call(uploading, "/v1/test/upload", [HEAD, b"{}\n" * 1000], FORM, ends=False)
    assert status == 400
    assert stored(uploading) is None


def test_a_writer_is_read_to_the_end_of_the_form(uploading: Api) -> None:
    status, body = call(uploading, "/v1/test/upload", [HEAD, b"{}\n", PURPOSE, TAIL], FORM)
    assert (status, body) == (200, b'{"bytes":3,"name":"a","purpose":"batch"}')


def test_an_upload_is_longer_than_json_but_has_an_end(
    uploading: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_source, "MAX_UPLOAD_BYTES", 3 * MAX_JSON_BYTES)
    body = HEAD + b"x" * (2 * MAX_JSON_BYTES) + TAIL
    assert call(uploading, "/v1/test/upload", [body], FORM)[0] == 200
    uploading.service.storage.delete("inputs/uploaded")
    long = [HEAD] + [b"x" * MAX_JSON_BYTES] * 3 + [TAIL]
    status, answer = call(uploading, "/v1/test/upload", long, FORM)
    assert (status, b"body_too_large" in answer) == (413, True)
    assert stored(uploading) is None
    declared = {**FORM, "content-length": str(3 * MAX_JSON_BYTES + 1)}
    assert call(uploading, "/v1/test/upload", [b""], declared)[0] == 413


def test_a_slow_body_is_refused(uploading: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRACE", 0.0)
    for path, headers in (("upload", FORM), ("json", {"content-type": "application/json"})):
        status, answer = call(
            uploading, f"/v1/test/{path}", [HEAD], headers, ends=False, stalls=True
        )
        assert (status, b"body_too_slow" in answer) == (408, True)
    assert stored(uploading) is None


def test_json_is_bounded_before_it_is_parsed(uploading: Api) -> None:
    def post(content: bytes, **headers: str) -> int:
        headers = {"content-type": "application/json", **headers}
        return uploading.ours.post("/v1/test/json", content=content, headers=headers).status_code

    assert post(b'{"a": "' + b"x" * (MAX_JSON_BYTES - 9) + b'"}') == 200
    assert post(b'{"a": "' + b"x" * (MAX_JSON_BYTES - 8) + b'"}') == 413
    levels = MAX_DEPTH - 1
    assert post(b'{"a": ' + b"[" * levels + b"]" * levels + b"}") == 200
    assert post(b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}") == 400
    assert post(b"[" * MAX_JSON_BYTES) == 400
    assert post(b"{}", **{"content-encoding": "gzip"}) == 415


def test_a_type_in_capitals_is_bounded_too(uploading: Api) -> None:
    body = b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1)
    headers = {"content-type": "application/JSON"}
    answer = uploading.ours.post("/v1/test/json", content=body, headers=headers)
    assert answer.json()["error"]["code"] == "too_deep"


def test_nothing_of_a_body_is_said_without_a_key(uploading: Api) -> None:
    for body in (b"{", b"[" * MAX_JSON_BYTES, b"x" * (MAX_JSON_BYTES + 1)):
        for media_type in ("application/json", "application/JSON", "text/plain"):
            headers = {"content-type": media_type}
            answer = uploading.anonymous.post("/v1/test/json", content=body, headers=headers)
            assert answer.status_code == 401
    assert (
        uploading.anonymous.post("/v1/test/upload", content=HEAD, headers=FORM).status_code == 401
    )


def test_an_unavailable_database_is_no_bad_json(
    uploading: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = uploading.key()

    def fail(_: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(KeyManager, "authenticate", lambda *_: fail(_))
    answer = uploading.client(key).post("/v1/test/json", json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        (b'{"a": "' + b"[" * 100 + b'"}', False),
        (b'{"a": "\\"' + b"[{" * 100 + b'"}', False),
        (b"[" + b"[]," * 100 + b"{}]", False),
        (b'[{"a": ' * 32 + b"1" + b"}]" * 32, False),
        (b'[{"a": ' * 33 + b"1" + b"}]" * 33, True),
    ],
)
def test_brackets_in_text_and_in_a_row_are_no_depth(body: bytes, deep: bool) -> None:
    assert is_deep(body) is deep


def test_an_upload_that_waits_keeps_nobody_waiting(uploading: Api) -> None:
    answered = threading.Event()

    def body() -> Iterator[bytes]:
        yield HEAD
        assert answered.wait(60)
        yield TAIL

    headers = {"authorization": f"Bearer {uploading.key()}"}
    with serving(uploading.app) as url, httpx2.Client(base_url=url, headers=headers) as client:
        results: list[int] = []
        upload = threading.Thread(
            target=lambda: results.append(
                client.post("/v1/test/upload", content=body(), headers=FORM).status_code
            )
        )
        upload.start()
        assert client.post("/v1/test/json", json={}).json() == 0
        assert client.post("/v1/test/body", content=b"123").json() == 3
        answered.set()
        upload.join()
    assert results == [200]
