from __future__ import annotations

from collections.abc import Callable

import pytest

from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.service.rows import error_groups
from batchgen.service.rows.error_groups import FailedRow
from tests.support.homes import answer_some, finish

Submit = Callable[..., JobRecord]


def test_messages_that_differ_in_numbers_are_one_group(service: Service, submit: Submit) -> None:
    job = submit(80)
    answer_some(service, job, shards=1, failing=[7, 3, 9, 20])
    (running,) = service.results.error_groups(job.public_id).groups
    assert (running.code, running.pattern) == ("context_length_exceeded", "row N is too long")
    assert (running.message, running.param, running.count) == ("row 3 is too long", "messages", 4)
    assert running.rows == [FailedRow(row=row, custom_id=f"row-{row}") for row in (3, 7, 9)]
    service.cancel(job.public_id)
    finish(service, job)
    cancelled, same = service.results.error_groups(job.public_id).groups
    assert (cancelled.code, cancelled.count, cancelled.rows[0].row) == ("batch_cancelled", 48, 32)
    assert same == running
    assert len({cancelled.fingerprint, same.fingerprint}) == 2


def test_the_number_of_groups_is_bounded(
    service: Service, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups, "MOST_GROUPS", 1)
    job = submit(80)
    answer_some(service, job, shards=1, failing=[3, 4])
    service.cancel(job.public_id)
    finish(service, job)
    found = service.results.error_groups(job.public_id)
    assert [group.count for group in found.groups] == [2]
    assert found.others == 48


def test_a_job_without_errors_has_no_groups(service: Service, submit: Submit) -> None:
    job = submit(40)
    assert service.results.error_groups(job.public_id).groups == []
    finish(service, job)
    assert service.results.error_groups(job.public_id).groups == []
