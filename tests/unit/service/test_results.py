from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from batchgen.core.endpoints import CHAT, RESPONSES
from batchgen.core.rows import ResultRow
from batchgen.dataset.parts import part_key, write_part
from batchgen.errors import Corrupt, JobNotFound, NotAllowed
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.service.submission import Submission
from batchgen_workers.shard.finisher import footer_of
from tests.support.homes import answer_some, finish
from tests.support.permissions import writable
from tests.support.result_rows import ok_row

Submit = Callable[..., JobRecord]


def test_rows_come_in_input_order(service: Service, submit: Submit) -> None:
    job = submit(40)
    finish(service, job, failing=[0, 7, 39])
    rows = list(service.results.rows(job.public_id))
    assert [row.row for row in rows] == list(range(40))
    assert [row.row for row in rows if row.error] == [0, 7, 39]


def test_partial_rows_are_the_committed_ones(service: Service, submit: Submit) -> None:
    job = submit(80)
    assert list(service.results.rows(job.public_id, partial=True)) == []
    answer_some(service, job, shards=2)
    rows: list[ResultRow] = list(service.results.rows(job.public_id, partial=True))
    assert [row.row for row in rows] == list(range(64))
    assert len(service.results.parts(job.public_id)) == 2


def test_partial_rows_of_a_checkpoint_stand_where_they_belong(
    service: Service, submit: Submit
) -> None:
    job = submit(80)
    service.store.dispatch.start_due()
    first, second, _ = service.store.jobs.shards(job.id)
    lease = service.store.leases.claim(first.id, owner="host/1", ttl=60.0)
    assert lease is not None
    key = part_key(lease.job_public_id, lease.seq, lease.epoch, "ckpt")
    # row 40 is another shard's since a split
    saved = write_part(service.storage, key, [ok_row(5), ok_row(2), ok_row(40)], footer_of(lease))
    service.store.leases.checkpoint(lease, saved)
    other = service.store.leases.claim(second.id, owner="host/1", ttl=60.0)
    assert other is not None
    rows = [ok_row(row) for row in range(other.pos_start, other.pos_end)]
    part = write_part(
        service.storage, part_key(job.public_id, other.seq, 1), rows, footer_of(other)
    )
    service.store.leases.commit(other, part)
    finished = service.results.rows(job.public_id, partial=True)
    assert next(finished).row == 2
    assert [row.row for row in finished] == [5, *range(32, 64)]
    # none is left out silently
    finished = service.results.rows(job.public_id, partial=True)
    service.storage.delete(saved.path)
    with pytest.raises(Corrupt, match="missing"):
        list(finished)


def test_a_dataset_that_is_not_there_yet(service: Service, submit: Submit, tmp_path: Path) -> None:
    job = submit()
    for ask in (
        lambda: service.results.dataset(job.public_id),
        lambda: service.results.export(job.public_id, tmp_path / "out"),
        lambda: service.results.verify(job.public_id),
        lambda: service.results.rows(job.public_id),
    ):
        with pytest.raises(NotAllowed, match="--partial"):
            ask()
    assert not (tmp_path / "out").exists()


def test_a_failed_job_says_why(service: Service, submit: Submit) -> None:
    job = submit()
    service.store.jobs.fail(job.id, "The input changed on disk.")
    with pytest.raises(NotAllowed, match="changed on disk"):
        service.results.dataset(job.public_id)


def test_a_job_that_does_not_exist(service: Service) -> None:
    with pytest.raises(JobNotFound):
        service.results.dataset("nightly")


def test_openai_rows_have_the_endpoint_of_their_line(service: Service, submit: Submit) -> None:
    job = submit(80)
    answer_some(service, job, failing=[3])
    # the second shard is left out
    shard = service.store.jobs.shards(job.id)[2]
    assert shard.pos_start == 64
    finish(service, job, failing=[3])
    pieces = service.results.openai_lines(job.public_id, errors=None)
    lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
    assert len(lines) == 80
    kinds = [line["response"]["body"].get("object") for line in lines]
    assert kinds[:4] == ["chat.completion", "text_completion", "chat.completion", None]


def test_output_and_error_file_hold_the_rows_of_one_kind(service: Service, submit: Submit) -> None:
    job = submit(40)
    finish(service, job, failing=[3, 7])
    ask = partial(service.results.openai_lines, job.public_id, endpoint=CHAT)
    answers = [json.loads(line) for line in b"".join(ask(errors=False)).splitlines()]
    refused = [json.loads(line) for line in b"".join(ask(errors=True)).splitlines()]
    assert [line["custom_id"] for line in refused] == ["row-3", "row-7"]
    assert [line["response"]["status_code"] for line in refused] == [400, 400]
    assert len(answers) == 38
    # all of a batch, although every other line of this input is a completion
    assert {line["response"]["body"]["object"] for line in answers} == {"chat.completion"}


def test_a_response_repeats_its_request(service: Service) -> None:
    body = {"input": "Why?", "metadata": {"k": "v"}, "max_output_tokens": 7}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    source = io.BytesIO(json.dumps(line).encode())
    job = service.submit(source, Submission(model="tiny", params={"temperature": 0.5}))
    finish(service, job)
    asked = partial(service.results.openai_lines, job.public_id, errors=False)
    (answer,) = asked(endpoint=RESPONSES)
    assert list(asked()) == [answer]
    response = json.loads(answer)["response"]["body"]
    assert (response["object"], response["metadata"]) == ("response", {"k": "v"})
    assert (response["max_output_tokens"], response["temperature"]) == (7, 0.5)


def test_a_dataset_of_a_changed_manifest_does_not_verify(service: Service, submit: Submit) -> None:
    job = submit()
    finish(service, job)
    assert service.results.verify(job.public_id) == []
    manifest = service.results.dataset(job.public_id) / ".batchgen" / "manifest.json"
    writable(manifest).write_bytes(manifest.read_bytes() + b"\n")
    assert service.results.verify(job.public_id) != []
