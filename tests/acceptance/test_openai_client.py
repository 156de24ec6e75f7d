"""The official client of OpenAI, unchanged, against a real server with all that belongs to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import openai
import pytest
from openai.types import Batch, Completion, FileDeleted, FileObject, Model
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from batchgen.repair.invariants import check_invariants
from batchgen_workers.testing import NAN, answer_to
from tests.support.batches import CHAT, chat_line, jsonl, requests
from tests.support.homes import pin_model
from tests.support.installation import (
    ENDED,
    Installation,
    await_status,
    installation,
    lines_of,
)
from tests.support.servers import PostgresServer
from tests.support.workers import DEADLINE, wait_until

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[Installation]:
    """One installation for all tests of this module; each has a tenant of its own."""
    folder = tmp_path_factory.mktemp("service")
    pin_model(folder / "home")
    url = postgres_server.create(template=postgres_server.template)
    with installation(folder, database_url=url) as service:
        yield service
        store = service.service.store
        assert check_invariants(store, service.service.storage) == []
    postgres_server.drop(url)


@pytest.fixture
def client(service: Installation, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """A client of a tenant that no other test has."""
    service.hold.release()
    tenant = request.node.originalname.replace("_", "-")[:60]
    with service.client(tenant) as client:
        yield client


def upload(client: openai.OpenAI, data: bytes | None = None, **fields: Any) -> FileObject:
    source = ("requests.jsonl", requests() if data is None else data)
    return client.files.create(file=source, purpose="batch", **fields)


def create(client: openai.OpenAI, file: FileObject, **fields: Any) -> Batch:
    asked: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h", **fields}
    return client.batches.create(input_file_id=file.id, **asked)


def assert_whole(shown: Batch | FileObject) -> None:
    """Every field of OpenAI's is in the answer itself, and of its type."""
    assert shown.model_fields_set >= set(type(shown).model_fields)
    type(shown).model_validate(shown.model_dump(), strict=True)


def line(number: int, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"row-{number}", "method": "POST", "url": url, "body": body}


def test_the_whole_life_of_a_batch(client: openai.OpenAI, tmp_path: Path) -> None:
    lines = [chat_line(number, temperature=0, max_tokens=3) for number in range(5)]
    lines[2]["body"]["messages"][0]["content"] = f"{NAN} please"
    path = tmp_path / "requests.jsonl"
    path.write_bytes(jsonl(lines))
    expires: Any = {"anchor": "created_at", "seconds": 7200}
    file = client.files.create(file=path, purpose="batch", expires_after=expires)
    assert_whole(file)
    assert (file.bytes, file.filename, file.purpose) == (
        path.stat().st_size,
        "requests.jsonl",
        "batch",
    )
    assert file.expires_at == file.created_at + 7200
    assert client.files.content(file.id).content == path.read_bytes()
    batch = create(client, file, metadata={"customer": "c-1"}, output_expires_after=expires)
    assert_whole(batch)
    assert batch.status in ("validating", "in_progress")
    batch = await_status(client, batch, "completed")
    assert_whole(batch)
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 5, "completed": 4, "failed": 1}
    assert (batch.metadata, batch.model, batch.endpoint) == ({"customer": "c-1"}, "tiny", CHAT)
    _assert_moments(batch)
    answers = lines_of(client, batch.output_file_id)
    assert [answer["custom_id"] for answer in answers] == ["row-0", "row-1", "row-3", "row-4"]
    for answer in answers:
        assert set(answer) == {"id", "custom_id", "response", "error"}
        assert (answer["response"]["status_code"], answer["error"]) == (200, None)
        ChatCompletion.model_validate(answer["response"]["body"], strict=True)
    said = answers[1]["response"]["body"]["choices"][0]["message"]["content"]
    assert said == answer_to("Count to 1", seed=None, tokens=3)
    [failed] = lines_of(client, batch.error_file_id)
    assert (failed["custom_id"], failed["error"]) == ("row-2", None)
    assert failed["response"]["status_code"] == 500
    assert set(failed["response"]["body"]["error"]) == {"message", "type", "param", "code"}
    assert batch.usage is not None
    used = [answer["response"]["body"]["usage"] for answer in answers]
    assert batch.usage.output_tokens == sum(each["completion_tokens"] for each in used)
    output = client.files.retrieve(batch.output_file_id or "")
    assert_whole(output)
    assert (output.purpose, output.status) == ("batch_output", "processed")
    assert output.bytes == len(client.files.content(output.id).content)
    assert (output.expires_at or 0) - output.created_at == 7200
    wait_until(lambda: len(client.files.list(purpose="batch_output").data) == 2)


def _assert_moments(batch: Batch) -> None:
    passed = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert all(passed)
    assert passed == sorted(passed, key=lambda moment: moment or 0)
    assert batch.expires_at == batch.created_at + 86400
    for other in (batch.failed_at, batch.expired_at, batch.cancelling_at, batch.cancelled_at):
        assert other is None


@pytest.mark.parametrize(
    ("url", "body", "oracle"),
    [
        (COMPLETIONS, {"prompt": "Count to 3"}, Completion),
        (RESPONSES, {"input": "Count to 3", "instructions": "Be brief."}, Response),
    ],
)
def test_other_endpoints(
    client: openai.OpenAI, url: str, body: dict[str, Any], oracle: type[Any]
) -> None:
    lines = [line(number, url, model="tiny", **body) for number in range(2)]
    batch = create(client, upload(client, jsonl(lines)), endpoint=url)
    batch = await_status(client, batch, "completed")
    answers = lines_of(client, batch.output_file_id)
    assert [answer["custom_id"] for answer in answers] == ["row-0", "row-1"]
    for answer in answers:
        oracle.model_validate(answer["response"]["body"], strict=False)
    assert batch.error_file_id is None


def test_lines_that_cannot_be_used_are_named(client: openai.OpenAI) -> None:
    lines = [chat_line(0), chat_line(1, messages=None), chat_line(2, stream=True), chat_line(0)]
    file = upload(client, jsonl(lines) + b"{\n")
    batch = await_status(client, create(client, file), "failed")
    assert_whole(batch)
    assert batch.failed_at is not None
    assert batch.errors is not None
    assert [(one.line, one.code, one.param) for one in batch.errors.data or []] == [
        (2, "missing_required_parameter", "body.messages"),
        (3, "unsupported_parameter", "body.stream"),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "invalid_json", None),
    ]
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    lenient = {"batchgen": {"on_invalid": "row_error", "name": "lenient"}}
    kept = upload(client, jsonl(lines[:3]))
    batch = await_status(client, create(client, kept, extra_body=lenient), "completed")
    failed = lines_of(client, batch.error_file_id)
    assert [each["custom_id"] for each in failed] == ["row-1", "row-2"]
    assert [each["response"]["status_code"] for each in failed] == [400, 400]
    assert failed[0]["response"]["body"]["error"]["code"] == "missing_required_parameter"


def test_a_batch_in_which_every_row_failed_is_completed(client: openai.OpenAI) -> None:
    lines = [chat_line(number) for number in range(2)]
    for each in lines:
        each["body"]["messages"][0]["content"] = NAN
    batch = await_status(client, create(client, upload(client, jsonl(lines))), "completed")
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 2, "completed": 0, "failed": 2}
    assert batch.output_file_id is None
    assert len(lines_of(client, batch.error_file_id)) == 2


def test_results_can_be_read_while_it_goes_on_and_a_cancel_keeps_them(
    service: Installation, client: openai.OpenAI
) -> None:
    service.hold.after(40)
    batch = create(client, upload(client, requests(96)))

    def partial() -> list[str]:
        found = client.batches.retrieve(batch.id)
        file_id = (found.model_extra or {})["batchgen"]["output_file_id"]
        if file_id is None:
            return []
        content = client.files.with_raw_response.content(file_id)
        assert content.headers["x-incomplete"] == "true"
        assert found.output_file_id is None
        return content.text.splitlines()

    wait_until(lambda: len(partial()) >= 32)
    cancelled = client.batches.cancel(batch.id)
    assert cancelled.status in ("cancelling", "cancelled")
    assert cancelled.cancelling_at is not None
    assert client.batches.cancel(batch.id).cancelling_at == cancelled.cancelling_at
    batch = await_status(client, batch, "cancelled")
    assert_whole(batch)
    assert batch.cancelled_at is not None
    assert batch.cancelled_at >= cancelled.cancelling_at
    answers, stopped = (
        lines_of(client, each) for each in (batch.output_file_id, batch.error_file_id)
    )
    assert batch.request_counts is not None
    assert batch.request_counts.completed == len(answers) >= 32
    assert batch.request_counts.failed == len(stopped) == 96 - len(answers)
    assert {each["error"]["code"] for each in stopped} == {"batch_cancelled"}
    assert {each["response"] for each in stopped} == {None}
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(create_refused(client).id)


def create_refused(client: openai.OpenAI) -> Batch:
    return await_status(client, create(client, upload(client, b"{}\n")), "failed")


def test_a_batch_whose_time_is_over_keeps_what_is_finished(
    service: Installation, client: openai.OpenAI
) -> None:
    service.hold.after(0)
    batch = create(client, upload(client, requests(3)), completion_window="2s")
    assert batch.expires_at == batch.created_at + 2
    batch = await_status(client, batch, "expired")
    assert_whole(batch)
    assert batch.expired_at is not None
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 3, "completed": 0, "failed": 3}
    late = lines_of(client, batch.error_file_id)
    assert [each["custom_id"] for each in late] == ["row-0", "row-1", "row-2"]
    assert {each["error"]["code"] for each in late} == {"batch_expired"}


class _Losing(httpx2.HTTPTransport):
    """Loses the answer to the first create, which the server has served."""

    def __init__(self) -> None:
        super().__init__()
        self.creates = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = super().handle_request(request)
        if request.method == "POST" and request.url.path == "/v1/batches":
            self.creates += 1
            if self.creates == 1:
                answer.close()
                raise httpx2.ReadTimeout("the answer was lost", request=request)
        return answer


def test_a_create_whose_answer_is_lost_is_one_batch(
    service: Installation, client: openai.OpenAI
) -> None:
    transport = _Losing()
    with httpx2.Client(transport=transport) as http:
        losing = client.with_options(http_client=http)
        batch = create(losing, upload(losing))
    assert transport.creates == 2
    assert [each.id for each in client.batches.list()] == [batch.id]


def test_a_create_sent_three_times_at_once_is_one_batch(client: openai.OpenAI) -> None:
    file, found = upload(client), []
    barrier = threading.Barrier(3)

    def ask() -> None:
        barrier.wait()
        batch = create(client, file, extra_headers={"Idempotency-Key": "night-1"})
        found.append(batch.id)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert [each.id for each in client.batches.list()] == [found[0]] == list(set(found))
    with pytest.raises(openai.ConflictError) as refused:
        create(client, file, completion_window="1h", extra_headers={"Idempotency-Key": "night-1"})
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.request_id is not None


def test_lists_go_on_over_pages(client: openai.OpenAI) -> None:
    files = [upload(client, requests(number)).id for number in range(1, 6)]
    kept = client.files.retrieve(files[0])
    batches = [create(client, kept).id for _ in range(5)]
    assert [each.id for each in client.batches.list(limit=2)] == batches[::-1]
    page = client.batches.list(limit=2)
    assert (page.has_more, len(page.data)) == (True, 2)
    assert [each.id for each in client.files.list(purpose="batch", limit=2)] == files[::-1]
    ascending = client.files.list(purpose="batch", order="asc", limit=2)
    assert [each.id for each in ascending] == files


def test_errors_are_those_of_the_client(service: Installation, client: openai.OpenAI) -> None:
    file = upload(client)
    with pytest.raises(openai.NotFoundError) as missing:
        client.files.retrieve("file-abc123")
    assert (missing.value.type, missing.value.code) == ("invalid_request_error", "file_not_found")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_abc123")
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, file, endpoint="/v1/embeddings")
    assert refused.value.param == "endpoint"
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune")
    with pytest.raises(openai.NotFoundError):
        service.client("another").files.content(file.id)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="bg_0").files.list()
    deleted = client.files.delete(file.id)
    assert deleted.model_fields_set >= set(FileDeleted.model_fields)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    with pytest.raises(openai.NotFoundError):
        create(client, file)


def test_models(client: openai.OpenAI) -> None:
    [model] = client.models.list()
    assert isinstance(model, Model)
    assert (model.id, model.object, model.owned_by) == ("tiny", "model", "batchgen")
    assert client.models.retrieve("tiny") == model


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_asynchronous_client(service: Installation, anyio_backend: str) -> None:
    service.hold.release()
    async with openai.AsyncOpenAI(**service.options("async")) as client:
        source = ("requests.jsonl", requests(3))
        file = await client.files.create(file=source, purpose="batch")
        batches = [
            await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            for _ in range(3)
        ]
        cancelled = await client.batches.cancel(batches[2].id)
        assert cancelled.status in ("cancelling", "cancelled")
        batch = batches[0]
        with anyio.fail_after(DEADLINE):
            while batch.status not in ENDED:
                batch = await client.batches.retrieve(batch.id)
        assert_whole(batch)
        assert batch.status == "completed"
        content = await client.files.content(batch.output_file_id or "")
        answers = [json.loads(each) for each in content.text.splitlines()]
        assert [each["custom_id"] for each in answers] == ["row-0", "row-1", "row-2"]
        listed = [each.id async for each in client.batches.list(limit=1)]
        assert listed == [each.id for each in batches[::-1]]
        files = [each.id async for each in client.files.list(purpose="batch")]
        assert files == [file.id]
        with pytest.raises(openai.NotFoundError):
            await client.batches.retrieve("batch_abc123")
