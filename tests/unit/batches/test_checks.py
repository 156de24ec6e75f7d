from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from batchgen.batches.batch_records import BatchError, BatchStatus
from batchgen.batches.checks import CLAIM_SECONDS, CheckManager
from batchgen.database.batch_tables import batches
from batchgen.errors import FileNotFound
from batchgen.jobs.records.job_records import NewJob
from batchgen.service import Service
from tests.support.batches import create, job_of
from tests.support.homes import MODEL


@pytest.fixture
def checks(service: Service) -> CheckManager:
    return CheckManager(service.store.database)


def move_claim(service: Service, batch_id: str, seconds: float) -> None:
    with service.store.database.begin() as connection:
        mine = update(batches).where(batches.c.id == batch_id)
        connection.execute(mine.values(claimed_until=batches.c.claimed_until + seconds))


def job_for(batch: Any) -> NewJob:
    return NewJob(
        input_sha256=batch.input_sha256,
        input_bytes=100,
        n_rows=4,
        model=MODEL,
        model_sha256="0" * 64,
        tenant_id=batch.tenant_id,
        public_id=batch.id,
        deadline=batch.expires_at,
    )


def test_batches_are_claimed_once_and_oldest_first(service: Service, checks: CheckManager) -> None:
    first, second = create(service), create(service)
    claimed = [checks.claim(), checks.claim()]
    assert [one.batch.id for one in claimed if one] == [first.id, second.id]
    assert claimed[0] is not None
    assert claimed[0].n_rows == 4
    assert checks.claim() is None


@pytest.mark.parametrize("moved", [-CLAIM_SECONDS - 1.0, 10 * CLAIM_SECONDS])
def test_a_claim_that_ran_out_or_lasts_too_long_is_free(
    service: Service, checks: CheckManager, moved: float
) -> None:
    batch = create(service)
    checks.claim()
    move_claim(service, batch.id, moved)  # time passed, or the clock was set back
    again = checks.claim()
    assert again is not None
    assert again.batch.id == batch.id


def test_a_renewed_claim_is_not_free(service: Service, checks: CheckManager) -> None:
    batch = create(service)
    checks.claim()
    move_claim(service, batch.id, -CLAIM_SECONDS - 1.0)
    assert checks.renew(batch.id)
    assert checks.claim() is None
    checks.release(batch.id, delay=30.0)
    assert checks.claim() is None
    checks.release(batch.id)
    assert checks.claim() is not None


def test_a_cancelled_batch_is_neither_claimed_nor_renewed_nor_ended(
    service: Service, checks: CheckManager
) -> None:
    batch = create(service)
    checks.claim()
    cancelled = service.batches.cancel(batch.id)
    assert not checks.renew(batch.id)
    checks.accept(batch.id, job_for(batch))
    checks.refuse(batch.id, [BatchError(code="a", message="b")])
    assert service.batches.get(batch.id) == cancelled
    assert service.records() == []


def test_the_first_end_of_two_checks_counts(service: Service, checks: CheckManager) -> None:
    batch = create(service)
    checks.accept(batch.id, job_for(batch))
    checks.refuse(batch.id, [BatchError(code="a", message="b")])
    checks.accept(batch.id, job_for(batch))
    assert service.batches.get(batch.id).status is BatchStatus.IN_PROGRESS
    assert [job.public_id for job in service.records()] == [batch.id]
    other = create(service)
    checks.refuse(other.id, [BatchError(code="a", message="b", line=3, param="url")])
    checks.accept(other.id, job_for(other))
    found = service.batches.get(other.id)
    assert (found.status, found.job_id) == (BatchStatus.FAILED, None)
    assert found.errors == (BatchError(code="a", message="b", line=3, param="url"),)


def test_result_files_appear_with_the_job(service: Service, checks: CheckManager) -> None:
    batch = create(service)
    with pytest.raises(FileNotFound):
        service.files.get(batch.output_file_id)
    checks.accept(batch.id, job_for(batch))
    file = service.files.get(batch.output_file_id)
    assert (file.purpose, file.batch_id, file.bytes) == ("batch_output", batch.id, None)
    assert (file.endpoint, file.is_errors) == (batch.endpoint, False)
    assert service.files.get(batch.error_file_id).is_errors
    assert batch.output_file_id not in [one.id for one in service.files.list()]


def test_a_batch_whose_time_is_over_before_its_check_expires(
    service: Service, checks: CheckManager
) -> None:
    batch = create(service, completion_window="1s")
    with service.store.database.begin() as connection:
        connection.execute(update(batches).values(expires_at=5.0))
    late = service.batches.get(batch.id)
    checks.accept(batch.id, job_for(late))
    while not service.store.dispatch.expire_due():  # a millisecond later
        pass
    assert job_of(service, batch).stop_reason == "expire"
