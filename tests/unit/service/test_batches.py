from __future__ import annotations

from typing import Any

import pytest

from batchgen.batches.batch_records import BatchRecord, BatchStatus
from batchgen.batches.options import BatchOptions
from batchgen.errors import InvalidParameter, NotAllowed, UnknownModel
from batchgen.service import Service
from batchgen.service.job_json import job_json
from tests.support.batches import chat_line, checked, create, job_of, jsonl
from tests.support.homes import pin_model
from tests.support.jobs import set_job


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"completion_window": "99999999w"}, "completion_window"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"a" * 65: ""}}, "metadata"),
        ({"metadata": {"a": "b" * 513}}, "metadata"),
        ({"output_seconds": 10.0}, "output_expires_after.seconds"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"options": BatchOptions(on_invalid="skip")}, "batchgen.on_invalid"),
        ({"options": BatchOptions(not_before="never")}, "not_before"),
        ({"options": BatchOptions(not_before="+25h")}, "batchgen.not_before"),
        ({"options": BatchOptions(deadline="2001-01-01 00:00")}, "deadline"),
        ({"options": BatchOptions(window="25:00-26:00")}, "window"),
        ({"options": BatchOptions(priority=2_000_000)}, "priority"),
        ({"options": BatchOptions(name="")}, "name"),
        ({"options": BatchOptions(params={"max_tokns": 1})}, "max_tokns"),
        ({"options": BatchOptions(params={"expects": {}})}, "expects"),
    ],
)
def test_what_cannot_be_used_is_named(service: Service, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        create(service, **fields)
    assert refused.value.param == param
    assert service.batches.list() == []


def test_the_job_of_a_batch_shows_the_parameters_of_its_caller_only(service: Service) -> None:
    options = BatchOptions(params={"max_tokens": 5})
    batch = checked(service, create(service, options=options))
    assert job_json(service.status(batch.id))["params"] == {"max_tokens": 5}


def test_the_first_line_names_the_model(service: Service) -> None:
    with pytest.raises(UnknownModel, match="gpt-9"):
        create(service, jsonl([chat_line(0, model="gpt-9")]))
    pin_model(service.settings.home, "other")
    assert create(service, jsonl([chat_line(0, model="other")])).model == "other"
    with pytest.raises(InvalidParameter, match="names no model"):
        create(service, jsonl([chat_line(0, model=None)]))


def test_the_only_model_serves_lines_that_name_none(service: Service) -> None:
    assert create(service, b'\xef\xbb\xbf{"body": 1}\n').model == "tiny"


def test_a_model_of_the_options_answers_whatever_the_lines_name(service: Service) -> None:
    data = jsonl([chat_line(0, model="gpt-9"), chat_line(1, model="gpt-8")])
    batch = checked(service, create(service, data, options=BatchOptions(model="tiny")))
    assert batch.status is BatchStatus.IN_PROGRESS


def status(service: Service, batch: BatchRecord) -> str:
    return service.batches.get(batch.id).status


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("queued", None, "in_progress"),
        ("running", None, "in_progress"),
        ("stopping", "cancel", "cancelling"),
        ("finalizing", "cancel", "cancelling"),
        ("cancelled", "cancel", "cancelled"),
        ("stopping", "expire", "finalizing"),
        ("finalizing", "expire", "finalizing"),
        ("expired", "expire", "expired"),
        ("failed", None, "failed"),
    ],
)
def test_every_state_of_a_job_has_a_status(
    service: Service, state: str, reason: str | None, expected: str
) -> None:
    batch = checked(service, create(service))
    set_job(service.store, job_of(service, batch).id, state=state, stop_reason=reason)
    assert status(service, batch) == expected


@pytest.mark.parametrize("state", ["finalizing", "completed", "expired", "failed"])
def test_too_late(service: Service, state: str) -> None:
    batch = checked(service, create(service))
    sums = {"manifest_sha256": "0" * 64}  # without it no job may be completed
    set_job(service.store, job_of(service, batch).id, state=state, **sums)
    with pytest.raises(NotAllowed, match=r"batch_\w+ is \w+; it cannot be cancelled"):
        service.batches.cancel(batch.id)
