from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from batchgen.batches.batch_records import BatchError, BatchRecord
from batchgen.batches.checks import CheckManager
from batchgen.batches.options import BatchOptions
from batchgen.batches.validation import LISTED, Refused, validate_batch
from batchgen.errors import Corrupt
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.jobs.records.job_records import NewJob
from batchgen.service import Service
from batchgen.service.submission import Submission
from tests.support.batches import CHAT, chat_line, checked, create, jsonl, requests
from tests.support.homes import MODEL


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Lines are the same on every database."""
    return sqlite_url


def validated(service: Service, watch: Any = lambda: None) -> NewJob:
    unchecked = CheckManager(service.store.database).claim()
    assert unchecked is not None
    model = service.model(unchecked.batch.model)
    return validate_batch(unchecked, storage=service.storage, model=model, watch=watch)


def refused(service: Service, data: bytes, **fields: Any) -> tuple[BatchError, ...]:
    create(service, data, **fields)
    with pytest.raises(Refused) as found:
        validated(service)
    return found.value.errors


def test_good_lines_become_the_job_that_was_asked_for(service: Service) -> None:
    options = BatchOptions(
        name="nightly",
        priority=3,
        not_before="+2h",
        window="22:00-06:00 UTC",
        params={"max_tokens": 5},
    )
    batch = create(service, requests(3) + b"\n\n", options=options)
    new = validated(service)
    assert (new.public_id, new.tenant_id, new.key_id) == (batch.id, "ours", "k1")
    assert (new.n_rows, new.model, new.input_sha256) == (3, "tiny", batch.input_sha256)
    assert (new.name, new.priority, new.window) == ("nightly", 3, "22:00-06:00 UTC")
    assert new.not_before == pytest.approx(batch.created_at + 7200.0, abs=60.0)
    assert new.deadline == batch.expires_at
    expects = {"url": CHAT, "model": "tiny"}
    assert new.params == {"max_tokens": 5, "expects": expects}
    assert new.lengths is not None
    assert new.lengths.prompt_tokens > 0


def test_every_bad_line_is_named(service: Service) -> None:
    lines = [
        chat_line(0),
        {**chat_line(1), "custom_id": "row-0"},
        {**chat_line(2), "url": "/v1/completions"},
        {**chat_line(3), "method": "GET"},
        chat_line(4, messages=None),
        chat_line(5, stream=True),
        chat_line(6, model="other"),
        chat_line(7, max_tokens=0),
        {"prompt": "a shorthand line"},
    ]
    errors = refused(service, jsonl(lines) + b"{\n")
    assert [(one.line, one.code, one.param) for one in errors] == [
        (2, "duplicate_custom_id", "custom_id"),
        (3, "missing_required_parameter", "body.prompt"),
        (4, "invalid_value", "method"),
        (5, "missing_required_parameter", "body.messages"),
        (6, "unsupported_parameter", "body.stream"),
        (7, "mismatched_model", "body.model"),
        (8, "invalid_value", "body.max_tokens"),
        (9, "invalid_url", "url"),
        (10, "invalid_json", None),
    ]
    assert all(one.message for one in errors)


def test_blank_lines_count_as_lines(service: Service) -> None:
    [blank, bad] = refused(service, b"\xef\xbb\xbf\n" + jsonl([chat_line(5)]) + b"{\n")
    assert (blank.line, blank.code) == (1, "blank_line")
    assert (bad.line, bad.code) == (3, "invalid_json")


def test_further_problems_are_counted(service: Service) -> None:
    errors = refused(service, b"{\n" * (LISTED + 5))
    assert [one.line for one in errors] == [*range(1, LISTED + 1), None]
    assert errors[-1].message == "5 more lines have problems."


@pytest.mark.parametrize("data", [b"\x1f\x8b\x08\x00rest", b'[\n{"a": 1}\n]\n', b"a,b\n1,2\n"])
def test_a_file_of_another_format_has_one_error(service: Service, data: bytes) -> None:
    [error] = refused(service, data)
    assert (error.code, error.line) == ("invalid_file", None)
    assert "not JSON Lines" in error.message


def test_bad_lines_may_become_error_rows(service: Service) -> None:
    lines = [chat_line(0), {**chat_line(1), "url": "/v1/completions"}, {}]
    create(service, jsonl(lines), options=BatchOptions(on_invalid="row_error"))
    assert validated(service).n_rows == 3
    again = [chat_line(0), chat_line(0)]  # which answer is which would be unknown
    [error] = refused(service, jsonl(again), options=BatchOptions(on_invalid="row_error"))
    assert error.code == "duplicate_custom_id"


def test_a_row_that_asks_for_more_than_the_context_is_bad(service: Service) -> None:
    [error] = refused(service, jsonl([chat_line(0, max_tokens=100_000)]))
    assert (error.line, error.param) == (1, "body.max_tokens")


def test_a_check_ends_where_its_watch_says_so(service: Service) -> None:
    class Enough(Exception):
        pass

    def watch() -> None:
        raise Enough

    create(service)
    with pytest.raises(Enough):
        validated(service, watch)


@pytest.mark.parametrize("change", ["bytes", "missing", "index"])
def test_an_input_that_is_lost_or_changed(service: Service, change: str) -> None:
    batch: BatchRecord = create(service)
    sha256 = batch.input_sha256 or ""
    path: Path = service.storage.path((index_key if change == "index" else input_key)(sha256))
    data = path.read_bytes()
    path.unlink()
    if change == "bytes":
        path.write_bytes(data.replace(b"Count", b"Mount"))
    with pytest.raises(Corrupt):
        validated(service)


def test_a_key_of_another_job_does_not_fail_a_batch(service: Service) -> None:
    batch = create(service)
    taken = Submission(model=MODEL, idempotency_key=f"batch_{batch.id}")
    service.submit(io.BytesIO(b'{"prompt": "hi"}'), taken)
    assert checked(service, batch).status == "in_progress"
