from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import update

from batchgen.batches.batch_records import BatchRecord, BatchStatus
from batchgen.core.states import JobState
from batchgen.database.batch_tables import batches
from batchgen.errors import (
    BatchNotFound,
    DatabaseUnavailable,
    FileNotFound,
    NotAllowed,
)
from batchgen.inputs.stored_input import input_key
from batchgen.repair.invariants import check_invariants
from batchgen.service import Service
from tests.support.batches import (
    checked,
    create,
    job_of,
    request,
    requests,
    upload,
)
from tests.support.homes import answer_some, finish
from tests.support.jobs import set_job


def set_batch(service: Service, batch: BatchRecord, **values: Any) -> None:
    with service.store.database.begin() as connection:
        mine = update(batches).where(batches.c.id == batch.id)
        connection.execute(mine.values(**values))


class TestCreate:
    def test_a_batch_is_stored_as_asked(self, service: Service, theirs: Service) -> None:
        batch = create(service, metadata={"team": "a"}, output_seconds=7200.0)
        assert batch.status is BatchStatus.VALIDATING
        assert (batch.model, batch.metadata, batch.key_id) == ("tiny", {"team": "a"}, "k1")
        assert batch.expires_at == pytest.approx(batch.created_at + 86400.0, abs=1.0)
        assert service.batches.get(batch.id) == batch
        with pytest.raises(BatchNotFound):
            theirs.batches.get(batch.id)
        with pytest.raises(BatchNotFound):
            theirs.batches.cancel(batch.id)

    def test_a_file_of_another_tenant_is_not_found(self, service: Service, theirs: Service) -> None:
        with pytest.raises(FileNotFound):
            theirs.batches.create(request(upload(service)))

    def test_results_are_no_requests(self, service: Service) -> None:
        batch = checked(service, create(service))
        finish(service, job_of(service, batch))
        file = service.files.get(batch.output_file_id)
        with pytest.raises(FileNotFound, match="no requests"):
            service.batches.create(request(file))


class TestRepetition:
    def test_a_key_names_one_batch_of_its_tenant(self, service: Service, theirs: Service) -> None:
        file = upload(service)
        first = service.batches.create(request(file, idempotency_key="k"))
        assert service.batches.create(request(file, idempotency_key="k")) == first
        assert create(theirs, idempotency_key="k").id != first.id
        with pytest.raises(NotAllowed, match="other values"):
            service.batches.create(request(file, idempotency_key="k", metadata={"a": "b"}))
        assert service.batches.create(request(file, idempotency_key="l")).id != first.id

    def test_an_equal_create_is_new_unless_the_client_repeats_itself(
        self, service: Service
    ) -> None:
        file = upload(service)
        first = service.batches.create(request(file))
        second = service.batches.create(request(file))
        assert second.id != first.id
        assert service.batches.create(request(file, is_retry=True)).id == second.id
        other = service.batches.create(request(file, is_retry=True, metadata={"a": "b"}))
        assert other.id not in (first.id, second.id)
        assert service.batches.create(request(file)).id not in (first.id, second.id)

    def test_an_equal_batch_of_long_ago_is_no_answer(self, service: Service) -> None:
        file = upload(service)
        first = service.batches.create(request(file))
        set_batch(service, first, created_at=first.created_at - 7200.0)
        assert service.batches.create(request(file, is_retry=True)).id != first.id

    @pytest.mark.parametrize("fields", [{"idempotency_key": "k"}, {"is_retry": True}])
    def test_repetitions_at_once_create_one_batch(
        self, service: Service, fields: dict[str, Any]
    ) -> None:
        file = upload(service)
        found: list[str] = []
        barrier = threading.Barrier(3)

        def ask() -> None:
            barrier.wait()
            found.append(service.batches.create(request(file, **fields)).id)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 3
        assert set(found) == {batch.id for batch in service.batches.list()} == {found[0]}


class TestStatus:
    def test_the_life_of_a_batch(self, service: Service) -> None:
        batch = checked(service, create(service, requests(4)))
        assert batch.status is BatchStatus.IN_PROGRESS
        job = job_of(service, batch)
        assert (job.public_id, job.tenant_id, job.key_id) == (batch.id, "ours", "k1")
        assert job.deadline == batch.expires_at
        answer_some(service, job, shards=1, failing=[2])
        service.store.finalization.finalizable()
        batch = service.batches.get(batch.id)
        assert (batch.status, batch.completed, batch.failed) == ("finalizing", 3, 1)
        finish(service, job)
        batch = service.batches.get(batch.id)
        assert (batch.status, batch.completed, batch.failed) == ("completed", 3, 1)
        assert batch.ended_as(BatchStatus.COMPLETED) is not None
        assert batch.ended_as(BatchStatus.EXPIRED) is None
        assert check_invariants(service.store, service.storage) == []

    def test_a_batch_in_which_every_row_failed_is_completed(self, service: Service) -> None:
        batch = checked(service, create(service, requests(2)))
        finish(service, job_of(service, batch), failing=[0, 1])
        batch = service.batches.get(batch.id)
        assert (batch.status, batch.completed, batch.failed) == ("completed", 0, 2)

    def test_rows_that_were_never_computed_count_as_failed(self, service: Service) -> None:
        batch = checked(service, create(service, requests(40)))
        job = job_of(service, batch)
        answer_some(service, job, shards=1)
        done = service.batches.get(batch.id).completed
        assert 0 < done < 40
        assert service.batches.get(batch.id).failed == 0
        set_job(service.store, job.id, state="expired", stop_reason="expire")
        batch = service.batches.get(batch.id)
        assert (batch.completed, batch.failed) == (done, 40 - done)


class TestCancel:
    def test_before_it_is_checked_it_ends_at_once(self, service: Service) -> None:
        batch = service.batches.cancel(create(service).id)
        assert batch.status is BatchStatus.CANCELLED
        assert batch.cancelling_at == batch.cancelled_at is not None
        assert service.batches.cancel(batch.id) == batch
        assert checked(service, batch) == batch  # it never becomes a job

    def test_while_its_job_runs_the_job_is_stopped(self, service: Service) -> None:
        batch = checked(service, create(service))
        batch = service.batches.cancel(batch.id)
        assert batch.status is BatchStatus.CANCELLING
        assert batch.cancelling_at is not None
        assert job_of(service, batch).state is JobState.STOPPING
        assert service.batches.cancel(batch.id) == batch

    def test_a_job_cancelled_by_its_id_says_when(self, service: Service) -> None:
        batch = checked(service, create(service))
        service.store.jobs.cancel(job_of(service, batch).id)
        assert service.batches.get(batch.id).cancelling_at is not None

    def test_a_refused_batch(self, service: Service) -> None:
        batch = checked(service, create(service, b"{}\n"))
        assert batch.status is BatchStatus.FAILED
        with pytest.raises(NotAllowed):
            service.batches.cancel(batch.id)


class TestRemoval:
    def test_a_batch_outlives_its_job(self, service: Service) -> None:
        batch = checked(service, create(service, requests(3)))
        finish(service, job_of(service, batch), failing=[1])
        before = service.batches.get(batch.id)
        service.files.delete(batch.input_file_id)
        service.remove(batch.id)
        after = service.batches.get(batch.id)
        assert (after.status, after.completed, after.failed) == ("completed", 2, 1)
        assert after.outcome == before.outcome
        assert after.in_progress_at == before.in_progress_at
        with pytest.raises(FileNotFound):
            service.files.get(batch.output_file_id)
        assert service.storage.size(input_key(batch.input_sha256 or "")) is None
        assert check_invariants(service.store, service.storage) == []
        # A new batch on the same bytes is no repetition of this one.
        assert create(service, requests(3), is_retry=True).id != batch.id

    def test_a_cancelled_job_may_go_before_its_dataset_is_written(self, service: Service) -> None:
        batch = checked(service, create(service))
        service.batches.cancel(batch.id)
        service.remove(batch.id)
        batch = service.batches.get(batch.id)
        assert batch.status is BatchStatus.CANCELLED
        assert batch.ended_as(BatchStatus.CANCELLED) is not None
        assert (batch.completed, batch.failed) == (0, 4)

    def test_deleting_both_results_removes_the_job(self, service: Service) -> None:
        batch = checked(service, create(service, requests(3)))
        job = finish(service, job_of(service, batch), failing=[1])
        service.files.delete(batch.output_file_id)
        assert service.storage.path(job.dataset_path or "").is_dir()
        service.files.delete(batch.error_file_id)
        assert not service.storage.path(f"datasets/{batch.id}").exists()
        assert not service.storage.path(f"parts/{batch.id}").exists()
        assert service.batches.get(batch.id).completed == 2
        assert service.files.get(batch.input_file_id).bytes == len(requests(3))

    def test_without_errors_one_deletion_suffices(self, service: Service) -> None:
        batch = checked(service, create(service))
        finish(service, job_of(service, batch))
        assert service.files.keeper.count_outputs() == 2
        service.files.delete(batch.output_file_id)
        assert not service.storage.path(f"datasets/{batch.id}").exists()

    def test_results_are_not_deleted_while_they_are_written(self, service: Service) -> None:
        batch = checked(service, create(service))
        with pytest.raises(NotAllowed, match="still writes"):
            service.files.delete(batch.output_file_id)

    def test_a_removal_that_was_cut_off_is_found_again(self, service: Service) -> None:
        batch = checked(service, create(service))
        finish(service, job_of(service, batch))
        keeper = service.files.keeper
        keeper.count_outputs()
        keeper.rows.delete(batch.output_file_id, tenant="ours")
        assert service.storage.path(f"datasets/{batch.id}").is_dir()
        assert (keeper.remove_given_up(), keeper.remove_given_up()) == (1, 0)
        assert not service.storage.path(f"datasets/{batch.id}").exists()


def test_batches_are_listed_newest_first_in_pages(service: Service, theirs: Service) -> None:
    ids = [create(service).id for _ in range(3)]
    create(theirs)
    page = service.batches.list(limit=2)
    assert [batch.id for batch in page] == ids[:0:-1]
    assert [batch.id for batch in service.batches.list(after=page[-1].id)] == ids[:1]


def test_a_create_whose_commit_got_lost_is_one_batch(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run commits and its answer is lost: the second must recognise it."""
    begin: Callable[..., Any] = service.store.database.begin
    lost: list[str] = []

    @contextmanager
    def losing() -> Any:
        with begin() as connection:
            yield connection
        if not lost:
            lost.append("answer")
            raise DatabaseUnavailable

    file = upload(service)
    monkeypatch.setattr(service.store.database, "begin", losing)
    batch = service.batches.create(request(file))
    assert lost
    assert [one.id for one in service.batches.list()] == [batch.id]
