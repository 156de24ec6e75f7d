from __future__ import annotations

import pytest
from sqlalchemy import update

from batchgen.database.batch_tables import files
from batchgen.errors import FileNotFound
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.repair.invariants import check_invariants
from batchgen.service import Service
from tests.support.batches import checked, create, job_of, requests, upload
from tests.support.homes import finish


def expire(service: Service, file_id: str) -> None:
    with service.store.database.begin() as connection:
        mine = update(files).where(files.c.id == file_id)
        connection.execute(mine.values(expires_at=1.0))


def is_stored(service: Service, sha256: str | None) -> bool:
    keys = [input_key(sha256 or ""), index_key(sha256 or "")]
    found = {service.storage.size(key) is not None for key in keys}
    assert len(found) == 1, "both or none"
    return found.pop()


def test_an_upload_is_found_by_its_tenant_only(service: Service, theirs: Service) -> None:
    file = upload(service, requests(3), expires_after=7200.0)
    assert service.files.get(file.id) == file
    assert (file.filename, file.purpose) == ("requests.jsonl", "batch")
    assert file.bytes == len(requests(3))
    assert file.expires_at == pytest.approx(file.created_at + 7200.0, abs=0.1)
    with pytest.raises(FileNotFound):
        theirs.files.get(file.id)
    with pytest.raises(FileNotFound):
        theirs.files.delete(file.id)
    assert theirs.files.list() == []


def test_files_are_listed_by_age_in_pages(service: Service) -> None:
    ids = [upload(service, requests(number)).id for number in (1, 2, 3)]
    newest = [file.id for file in service.files.list()]
    assert newest == ids[::-1]
    assert [file.id for file in service.files.list(limit=2, ascending=True)] == ids[:2]
    after = service.files.list(after=newest[0], limit=1)
    assert [file.id for file in after] == [newest[1]]
    after = service.files.list(after=ids[0], ascending=True)
    assert [file.id for file in after] == ids[1:]
    assert service.files.list(purpose="batch_output") == []


def test_equal_bytes_are_stored_once_and_deleted_with_the_last_file(
    service: Service, theirs: Service
) -> None:
    first, second = upload(service), upload(theirs)
    assert first.input_sha256 == second.input_sha256
    service.files.delete(first.id)
    assert is_stored(service, first.input_sha256)
    theirs.files.delete(second.id)
    assert not is_stored(service, first.input_sha256)
    assert upload(service).input_sha256 == first.input_sha256  # it can come again
    assert is_stored(service, first.input_sha256)


def test_a_batch_keeps_the_input_of_a_deleted_file(service: Service) -> None:
    batch = create(service)
    service.files.delete(batch.input_file_id)
    assert is_stored(service, batch.input_sha256)
    finish(service, job_of(service, checked(service, batch)))
    assert check_invariants(service.store, service.storage) == []
    service.remove(batch.id)
    assert not is_stored(service, batch.input_sha256)


def test_a_file_outlives_the_jobs_on_it(service: Service) -> None:
    batch = checked(service, create(service))
    finish(service, job_of(service, batch))
    service.remove(batch.id)
    assert is_stored(service, batch.input_sha256)
    service.files.delete(batch.input_file_id)
    assert not is_stored(service, batch.input_sha256)


def test_a_file_whose_time_is_over_is_gone_at_once(service: Service) -> None:
    file, kept = upload(service, requests(1)), upload(service, requests(2), expires_after=7200.0)
    expire(service, file.id)
    with pytest.raises(FileNotFound):
        service.files.get(file.id)
    assert [one.id for one in service.files.list()] == [kept.id]
    assert is_stored(service, file.input_sha256)  # until a coordinator looks
    keeper = service.files.keeper
    assert (keeper.delete_expired(), keeper.delete_expired()) == (1, 0)
    assert not is_stored(service, file.input_sha256)


def test_a_deletion_that_was_cut_off_is_finished_by_the_collector(service: Service) -> None:
    file = upload(service)
    service.files.keeper.rows.delete(file.id, tenant="ours")
    assert is_stored(service, file.input_sha256)
    collected = [garbage.key for garbage in service.collector().collect()]
    assert sorted(collected) == sorted(
        [input_key(file.input_sha256 or ""), index_key(file.input_sha256 or "")]
    )
    assert not is_stored(service, file.input_sha256)


def test_an_upload_is_no_garbage_and_breaks_no_invariant(service: Service) -> None:
    file = upload(service)
    collector = service.collector()
    collector._min_age = -10.0
    assert list(collector.collect()) == []
    assert check_invariants(service.store, service.storage) == []
    service.storage.delete(index_key(file.input_sha256 or ""))
    [violation] = check_invariants(service.store, service.storage)
    assert violation.invariant == "I18"
