from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from batchgen.database.tables import jobs
from batchgen.dataset.dataset import DatasetMeta, PartRef, write_dataset
from batchgen.dataset.parts import PartFooter, part_key, write_part
from batchgen.inputs.ingest import OnInvalid, ingest
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.jobs.records.job_records import JobRecord, Lease
from batchgen.jobs.store import Store
from batchgen.repair.invariants import check_invariants
from batchgen.repair.job_files import check_datasets, check_parts
from batchgen.storage.storage import LocalStorage
from tests.support.jobs import OWNER, TTL, claim_first, new_job
from tests.support.permissions import writable
from tests.support.result_rows import ok_row

N_ROWS = 40
LINES = [f'{{"prompt": "say {row}", "id": "q{row}"}}\n' for row in range(N_ROWS)]

CustomId = Callable[[int], str]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def submit(store: Store, storage: LocalStorage) -> JobRecord:
    source = io.BytesIO("".join(LINES).encode())
    stored = ingest(source, storage=storage, defaults={}, model="tiny", on_invalid=OnInvalid.REFUSE)
    new = replace(new_job(stored.n_rows), input_sha256=stored.sha256, input_bytes=stored.bytes)
    job = store.jobs.submit(new)
    store.dispatch.start_due()
    return job


def commit(store: Store, storage: LocalStorage, lease: Lease, custom_id: CustomId) -> None:
    rows = [ok_row(row, custom_id=custom_id(row)) for row in range(lease.pos_start, lease.pos_end)]
    footer = PartFooter(
        job=lease.job_public_id,
        shard=lease.seq,
        epoch=lease.epoch,
        pos_start=lease.pos_start,
        pos_end=lease.pos_end,
        input_sha256=lease.input_sha256,
        model=lease.model,
        model_sha256=lease.model_sha256,
    )
    key = part_key(lease.job_public_id, lease.seq, lease.epoch)
    store.leases.commit(lease, write_part(storage, key, rows, footer))


def complete(
    store: Store, storage: LocalStorage, custom_id: CustomId = lambda row: f"q{row}"
) -> JobRecord:
    job = submit(store, storage)
    for _ in store.jobs.shards(job.id):
        commit(store, storage, claim_first(store, job), custom_id)
    assert store.finalization.finalizable() == [job.id]
    final = store.finalization.claim(job.id, owner=OWNER, ttl=TTL)
    assert final is not None
    parts = [segment.part for segment in store.finalization.segments(job.id) if segment.part]
    info = write_dataset(
        storage,
        root=f"datasets/{job.public_id}/e{final.epoch}",
        segments=[PartRef(path=p.path, n_rows=p.n_rows, sha256=p.sha256) for p in parts],
        meta=DatasetMeta(
            job_id=job.public_id,
            name=None,
            model=job.model,
            model_sha256=job.model_sha256,
            engine_version="0",
            params={},
            input_sha256=job.input_sha256,
            n_rows=job.n_rows,
            created_at=job.created_at,
        ),
    )
    return store.finalization.complete(
        final, dataset_path=info.path, manifest_sha256=info.manifest_sha256
    )


def part_paths(store: Store, storage: LocalStorage, job: JobRecord) -> list[Path]:
    parts = [segment.part for segment in store.finalization.segments(job.id)]
    return [storage.path(part.path) for part in parts if part]


def test_a_sound_job_is_sound(store: Store, storage: LocalStorage) -> None:
    complete(store, storage)
    assert check_invariants(store, storage) == []


class TestParts:
    def test_missing(self, store: Store, storage: LocalStorage) -> None:
        first, _ = part_paths(store, storage, complete(store, storage))
        first.unlink()
        (problem,) = check_parts(store, storage)
        assert first.name in problem
        assert "is missing" in problem

    def test_of_another_size(self, store: Store, storage: LocalStorage) -> None:
        _, second = part_paths(store, storage, complete(store, storage))
        writable(second).write_bytes(second.read_bytes() + b"!")
        (problem,) = check_parts(store, storage)
        assert "bytes, not" in problem

    def test_with_one_byte_flipped(self, store: Store, storage: LocalStorage) -> None:
        first, _ = part_paths(store, storage, complete(store, storage))
        data = bytearray(first.read_bytes())
        data[100] ^= 1
        writable(first).write_bytes(data)
        (problem,) = check_parts(store, storage)
        assert "SHA-256" in problem


class TestDatasets:
    def test_of_a_running_job_there_is_none(self, store: Store, storage: LocalStorage) -> None:
        submit(store, storage)
        assert list(check_datasets(store, storage)) == []

    def test_whose_file_is_missing(self, store: Store, storage: LocalStorage) -> None:
        job = complete(store, storage)
        assert job.dataset_path is not None
        next((storage.path(job.dataset_path) / "data").iterdir()).unlink()
        (problem,) = check_datasets(store, storage)
        assert job.public_id in problem
        assert "missing" in problem

    def test_whose_manifest_is_another_s(self, store: Store, storage: LocalStorage) -> None:
        job = complete(store, storage)
        with store.database.begin() as connection:
            connection.execute(update(jobs).values(manifest_sha256="0" * 64))
        assert any(job.public_id in problem for problem in check_datasets(store, storage))

    def test_whose_rows_have_other_ids(self, store: Store, storage: LocalStorage) -> None:
        complete(store, storage, lambda row: "stranger" if row == 7 else f"q{row}")
        (problem,) = check_datasets(store, storage)
        assert "row 7 has another id" in problem

    def test_that_has_fewer_rows_than_its_input(self, store: Store, storage: LocalStorage) -> None:
        job = complete(store, storage)
        with store.database.begin() as connection:
            connection.execute(update(jobs).values(n_rows=N_ROWS - 1))
        (problem,) = check_datasets(store, storage)
        assert f"row {N_ROWS - 1} is missing, doubled or was never asked for" in problem
        assert job.public_id in problem

    def test_whose_input_is_gone(self, store: Store, storage: LocalStorage) -> None:
        job = complete(store, storage)
        with storage.write("inputs/another"):
            pass
        storage.delete(input_key(job.input_sha256))
        storage.delete(index_key(job.input_sha256))
        (problem,) = check_datasets(store, storage)
        assert "input" in problem
