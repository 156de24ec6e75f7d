from __future__ import annotations

import pytest
from sqlalchemy import update

from batchgen.batches.batch_records import BatchStatus
from batchgen.database.batch_tables import files
from batchgen.errors import Corrupt, FileNotFound
from batchgen.service import Service
from batchgen.service.file_keeper import FileKeeper
from tests.support.batches import checked, create, job_of, requests
from tests.support.homes import finish


def keeper(service: Service) -> FileKeeper:
    return FileKeeper(service.store, service.storage)


def test_results_are_counted_once_and_only_when_their_job_has_ended(service: Service) -> None:
    batch = checked(service, create(service, output_seconds=7200.0))
    keeping = keeper(service)
    assert keeping.count_outputs() == 0
    finish(service, job_of(service, batch), failing=[1])
    assert (keeping.count_outputs(), keeping.count_outputs()) == (2, 0)
    output = service.files.get(batch.output_file_id)
    lines = service.files.content(output.id).lines
    assert lines is not None
    assert output.bytes == len(b"".join(lines))
    assert output.expires_at == pytest.approx(output.created_at + 7200.0, abs=0.1)


def test_a_result_file_without_lines_is_no_file(service: Service) -> None:
    batch = checked(service, create(service))
    finish(service, job_of(service, batch))
    with pytest.raises(FileNotFound):
        service.files.get(batch.error_file_id)
    assert service.files.get(batch.output_file_id).bytes


def test_a_failed_job_has_no_result_files(service: Service) -> None:
    batch = checked(service, create(service))
    service.store.jobs.fail(job_of(service, batch).id, "the model is gone")
    assert keeper(service).count_outputs() == 2
    for file_id in (batch.output_file_id, batch.error_file_id):
        with pytest.raises(FileNotFound):
            service.files.get(file_id)
    assert keeper(service).remove_given_up() == 0  # the job stays, to say why
    assert service.batches.get(batch.id).status is BatchStatus.FAILED


def test_results_that_cannot_be_read_stop_no_others(service: Service) -> None:
    broken, whole = (checked(service, create(service, requests(n))) for n in (2, 3))
    job = finish(service, job_of(service, broken))
    finish(service, job_of(service, whole))
    manifest = service.storage.path(f"{job.dataset_path}/.batchgen/manifest.json")
    manifest.unlink()
    keeping, troubles = keeper(service), []
    keeping.on_trouble = lambda file, error: troubles.append((file.batch_id, type(error)))
    keeping.count_outputs()
    assert set(troubles) == {(broken.id, Corrupt)}
    assert service.files.list(purpose="batch_output")[0].batch_id == whole.id
    told = len(troubles)
    keeping.count_outputs()
    assert len(troubles) == told  # each is said once


def test_expired_results_take_their_dataset_with_them(service: Service) -> None:
    batch = checked(service, create(service, output_seconds=7200.0))
    finish(service, job_of(service, batch), failing=[0])
    keeping = keeper(service)
    keeping.count_outputs()
    with service.store.database.begin() as connection:
        results = update(files).where(files.c.batch_id == batch.id)
        connection.execute(results.values(expires_at=1.0))
    assert keeping.delete_expired() == 2
    assert not service.storage.path(f"datasets/{batch.id}").exists()
    after = service.batches.get(batch.id)
    assert (after.status, after.completed, after.failed) == ("completed", 3, 1)
    assert service.files.get(batch.input_file_id).bytes == len(requests())
