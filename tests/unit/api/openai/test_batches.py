from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Batch, Model

from tests.support.api import Api
from tests.support.batches import CHAT, chat_line, checker, job_of, jsonl, requests, upload
from tests.support.homes import answer_some, finish

UNKNOWN = "batch_" + "0" * 32
SHORT = {"anchor": "created_at", "seconds": 5}
EMPTY = ("errors", "output_file_id", "error_file_id", "usage")


def body(api: Api, data: bytes | None = None, **fields: Any) -> dict[str, Any]:
    file = upload(api.service.for_tenant("ours"), data)
    return {
        "input_file_id": f"file-{file.id}",
        "endpoint": CHAT,
        "completion_window": "24h",
        **fields,
    }


def post(api: Api, data: bytes | None = None, **fields: Any) -> dict[str, Any]:
    answer = api.ours.post("/v1/batches", json=body(api, data, **fields))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def get(api: Api, batch: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = api.ours.get(f"/v1/batches/{batch['id']}").json()
    assert set(Batch.model_fields) == set(found) - {"batchgen"}
    Batch.model_validate(found, strict=True)
    return found


def test_the_life_of_a_batch(api: Api) -> None:
    service = api.service.for_tenant("ours")
    batch = post(api, requests(4), metadata={"team": "a"}, batchgen={"name": "nightly"})
    assert get(api, batch) == batch
    assert batch["status"] == "validating"
    assert batch["expires_at"] - batch["created_at"] == 86400
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert [batch[name] for name in EMPTY] == [None] * len(EMPTY)
    assert batch["metadata"] == {"team": "a"}
    checker(service).run_once()
    batch = get(api, batch)
    assert (batch["status"], batch["output_file_id"]) == ("in_progress", None)
    assert batch["batchgen"]["name"] == "nightly"
    partial = batch["batchgen"]["output_file_id"]
    assert api.ours.get(f"/v1/files/{partial}/content").status_code == 200
    record = service.batches.get(batch["id"].removeprefix("batch_"))
    answer_some(service, job_of(service, record), failing=[1])
    assert get(api, batch)["request_counts"] == {"total": 4, "completed": 3, "failed": 1}
    finish(service, job_of(service, record))
    batch = get(api, batch)
    assert (batch["status"], batch["output_file_id"]) == ("completed", partial)
    assert batch["error_file_id"] == batch["batchgen"]["error_file_id"]
    moments = [
        batch[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")
    ]
    assert moments == sorted(moments)
    assert batch["usage"]["total_tokens"] == (
        batch["usage"]["input_tokens"] + batch["usage"]["output_tokens"]
    )
    assert [batch[f"{name}_at"] for name in ("failed", "expired", "cancelled", "cancelling")] == [
        None
    ] * 4


def test_without_errors_there_is_no_error_file(api: Api) -> None:
    service = api.service.for_tenant("ours")
    batch = post(api)
    checker(service).run_once()
    finish(service, job_of(service, service.batches.get(batch["id"].removeprefix("batch_"))))
    batch = get(api, batch)
    assert batch["error_file_id"] is None
    assert batch["output_file_id"] is not None


def test_where_every_row_failed_there_is_no_output_file(api: Api) -> None:
    service = api.service.for_tenant("ours")
    batch = post(api, requests(2))
    checker(service).run_once()
    record = service.batches.get(batch["id"].removeprefix("batch_"))
    finish(service, job_of(service, record), failing=[0, 1])
    batch = get(api, batch)
    assert (batch["status"], batch["output_file_id"]) == ("completed", None)
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    assert batch["error_file_id"] is not None


def test_a_refused_batch_names_its_lines(api: Api) -> None:
    batch = post(api, jsonl([chat_line(0), chat_line(1, messages=None)]))
    checker(api.service).run_once()
    batch = get(api, batch)
    assert (batch["status"], batch["failed_at"] is None) == ("failed", False)
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    [error] = batch["errors"]["data"]
    assert batch["errors"]["object"] == "list"
    assert (error["line"], error["code"]) == (2, "missing_required_parameter")
    assert error["param"] == "body.messages"


def test_a_job_that_failed_says_why(api: Api) -> None:
    service = api.service.for_tenant("ours")
    batch = post(api)
    checker(service).run_once()
    record = service.batches.get(batch["id"].removeprefix("batch_"))
    service.store.jobs.fail(job_of(service, record).id, "the model is gone")
    batch = get(api, batch)
    assert (batch["status"], batch["output_file_id"]) == ("failed", None)
    assert batch["errors"]["data"][0]["message"] == "the model is gone"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"colour": "red"}, "colour"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 5}},
            "output_expires_after.seconds",
        ),
        (
            {"output_expires_after": {"anchor": "now", "seconds": 5000}},
            "output_expires_after.anchor",
        ),
        ({"batchgen": {"prio": 1}}, "batchgen.prio"),
        ({"batchgen": {"params": {"temprature": 1}}}, "temprature"),
        ({"input_file_id": None}, "input_file_id"),
    ],
)
def test_what_cannot_be_used_is_400(api: Api, fields: dict[str, Any], param: str) -> None:
    answer = api.ours.post("/v1/batches", json=body(api, **fields))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert api.ours.get("/v1/batches").json()["data"] == []


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        (r'"metadata": {"\ud800": "a"}', "metadata"),
        (r'"batchgen": {"params": {"stop": "\ud800"}}', "batchgen"),
        (r'"batchgen": {"params": {"response_format": {"a": 1e999}}}', "batchgen"),
        (r'"batchgen": {"params": {"columns": ["a"], "seed": 99999999999999999999}}', "batchgen"),
    ],
)
def test_what_no_database_can_hold_is_400(api: Api, extra: str, param: str) -> None:
    text = f"{json.dumps(body(api))[:-1]}, {extra}}}"
    headers = {"content-type": "application/json"}
    answer = api.ours.post("/v1/batches", content=text, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_embeddings_are_refused_by_name(api: Api) -> None:
    answer = api.ours.post("/v1/batches", json=body(api, endpoint="/v1/embeddings"))
    assert "embeddings are not served" in answer.json()["error"]["message"]


@pytest.mark.parametrize("file_id", ["file-" + "0" * 32, "file-abc123", ""])
def test_an_unknown_file_is_404(api: Api, file_id: str) -> None:
    answer = api.ours.post("/v1/batches", json=body(api, input_file_id=file_id))
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "input_file_id")


def test_an_unknown_model_is_404(api: Api) -> None:
    answer = api.ours.post("/v1/batches", json=body(api, jsonl([chat_line(0, model="gpt-9")])))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_create_may_be_repeated(api: Api) -> None:
    asked = body(api)
    first = api.ours.post("/v1/batches", json=asked, headers={"idempotency-key": "k"}).json()
    again = api.ours.post("/v1/batches", json=asked, headers={"idempotency-key": "k"}).json()
    assert again == first
    other = {**asked, "completion_window": "1h"}
    refused = api.ours.post("/v1/batches", json=other, headers={"idempotency-key": "k"})
    assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")
    retried = {"x-stainless-retry-count": "1"}
    assert api.ours.post("/v1/batches", json=asked, headers=retried).json()["id"] != first["id"]
    second = api.ours.post("/v1/batches", json=asked, headers=retried).json()
    assert api.ours.post("/v1/batches", json=asked, headers=retried).json() == second
    plain = {"x-stainless-retry-count": "0"}
    assert api.ours.post("/v1/batches", json=asked, headers=plain).json()["id"] != second["id"]


def test_cancel(api: Api) -> None:
    batch = post(api)
    assert api.theirs.post(f"/v1/batches/{batch['id']}/cancel").status_code == 404
    cancelled = api.ours.post(f"/v1/batches/{batch['id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["cancelling_at"] == cancelled["cancelled_at"] is not None
    failed = post(api, b"{}\n")
    checker(api.service).run_once()
    answer = api.ours.post(f"/v1/batches/{failed['id']}/cancel")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")


@pytest.mark.parametrize("batch_id", [UNKNOWN, "batch_1", "file-" + "0" * 32])
def test_an_unknown_batch_is_404(api: Api, batch_id: str) -> None:
    for answer in (
        api.ours.get(f"/v1/batches/{batch_id}"),
        api.ours.post(f"/v1/batches/{batch_id}/cancel"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "batch_not_found")


def test_pages(api: Api) -> None:
    ids = [post(api)["id"] for _ in range(3)]
    page = api.ours.get("/v1/batches", params={"limit": 2}).json()
    assert [batch["id"] for batch in page["data"]] == ids[:0:-1]
    assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[2], ids[1])
    assert page["has_more"]
    rest = api.ours.get("/v1/batches", params={"after": page["last_id"]}).json()
    assert ([batch["id"] for batch in rest["data"]], rest["has_more"]) == (ids[:1], False)
    assert api.theirs.get("/v1/batches").json()["data"] == []
    assert api.ours.get("/v1/batches", params={"limit": 101}).status_code == 400


def test_models(api: Api) -> None:
    [model] = api.ours.get("/v1/models").json()["data"]
    assert set(Model.model_fields) - {"shutdown_date"} == set(model)
    assert Model.model_validate(model, strict=True).id == "tiny"
    assert api.ours.get("/v1/models/tiny").json() == model
    answer = api.ours.get("/v1/models/Qwen/Qwen9")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
