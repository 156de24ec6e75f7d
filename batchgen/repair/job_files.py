"""Compare the files that the database names with its records of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

from sqlalchemy import select, union

from batchgen.database import batch_tables
from batchgen.database.tables import inputs, jobs, parts, shards
from batchgen.dataset.part_files import PartFile, list_part_files
from batchgen.dataset.reader import iter_rows
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import Corrupt
from batchgen.inputs.stored_input import index_key, input_key, parse_rows
from batchgen.jobs.records.job_records import JobRecord, ShardRecord
from batchgen.jobs.store import Store
from batchgen.storage.durable_files import sha256_of
from batchgen.storage.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class FallenEpoch:
    """A shard with files of a later epoch than its own: an older backup was restored."""

    shard: ShardRecord
    # the latest epoch in the name of a file, and that file
    epoch: int
    key: str

    def __str__(self) -> str:
        return f"{self.key} is of epoch {self.epoch}, shard {self.shard.id} at {self.shard.epoch}"


def check_epochs(store: Store, storage: Storage) -> Iterator[FallenEpoch]:
    """Yield the shards that have files of a later epoch than their own."""
    # List files first: an epoch is in SQL before a file is written under it.
    for job, files in list_part_files(storage).items():
        of_job = (
            select(shards).join(jobs, jobs.c.id == shards.c.job_id).where(jobs.c.public_id == job)
        )
        with store.database.begin_reading() as connection:
            rows = connection.execute(of_job).all()
        yield from fallen_epochs(map(ShardRecord.from_row, rows), files)


def fallen_epochs(
    of_job: Iterable[ShardRecord], files: Iterable[PartFile]
) -> Iterator[FallenEpoch]:
    """Yield those shards of a job that may be claimed again."""
    latest: dict[int, PartFile] = {}
    for file in sorted(files, key=lambda file: file.name.epoch):
        latest[file.name.shard] = file
    for shard in of_job:
        ahead = latest.get(shard.id)
        if ahead is not None and not shard.state.final and ahead.name.epoch > shard.epoch:
            yield FallenEpoch(shard=shard, epoch=ahead.name.epoch, key=ahead.key)


def check_parts(store: Store, storage: Storage) -> Iterator[str]:
    """Yield one sentence for each registered part that is missing or was changed."""
    with store.database.begin_reading() as connection:
        registered = connection.execute(
            select(parts.c.path, parts.c.bytes, parts.c.sha256).order_by(parts.c.shard_id)
        ).all()
    for path, size, sha256 in registered:
        problem = check_part(storage, path, size, sha256)
        if problem is not None:
            storage.check("parts")
            yield f"{path} {problem}"


def check_inputs(store: Store, storage: Storage) -> Iterator[str]:
    """Yield one sentence for each input of a file or a batch that is missing or was changed.

    The input of a job is compared with its dataset instead.
    """
    used = union(
        *[select(table.c.input_sha256) for table in (batch_tables.files, batch_tables.batches)],
    ).subquery()
    with store.database.begin_reading() as connection:
        found = connection.execute(
            select(inputs.c.sha256, inputs.c.bytes)
            .where(inputs.c.sha256.in_(select(used)))
            .order_by(inputs.c.sha256)
        ).all()
    for sha256, size in found:
        key = input_key(sha256)
        problem = check_part(storage, key, size, sha256)
        if problem is None and storage.size(index_key(sha256)) is None:
            problem = "has no index"
        if problem is not None:
            storage.check("inputs")
            yield f"{key} {problem}"


def check_part(storage: Storage, path: str, size: int, sha256: str) -> str | None:
    """Return the fault of a registered file as a sentence, None if there is none."""
    found = storage.size(path)
    if found is None:
        return "is missing"
    if found != size:
        return f"has {found} bytes, not {size}"
    if sha256_of(storage.path(path)) != sha256:
        return "was changed: its SHA-256 is not the one registered"
    return None


def check_datasets(store: Store, storage: Storage) -> Iterator[str]:
    """Yield one sentence for each dataset whose files or rows do not match its job."""
    with store.database.begin_reading() as connection:
        rows = connection.execute(
            select(jobs).where(jobs.c.dataset_path.is_not(None)).order_by(jobs.c.id)
        ).all()
    for job in map(JobRecord.from_row, rows):
        problems = _check_dataset(job, storage)
        if problems:
            storage.check("datasets")
        for problem in problems:
            yield f"job {job.public_id}: {problem}"


def _check_dataset(job: JobRecord, storage: Storage) -> list[str]:
    assert job.dataset_path is not None, "only jobs with a dataset are asked for"
    folder = storage.path(job.dataset_path)
    problems = verify_dataset(folder, manifest_sha256=job.manifest_sha256)
    if problems:
        return problems
    try:
        problem = _first_difference(job, storage)
    except Corrupt as error:
        problem = error.message
    return [problem] if problem else []


def _first_difference(job: JobRecord, storage: Storage) -> str | None:
    """Return the first difference between the rows of a dataset and its input, None if equal."""
    assert job.dataset_path is not None
    asked = parse_rows(
        storage, job.input_sha256, 0, job.n_rows, defaults=job.params, model=job.model
    )
    answered = iter_rows(storage.path(job.dataset_path))
    for row, (record, result) in enumerate(zip_longest(asked, answered)):
        if record is None or result is None or result.row != row:
            return f"row {row} is missing, doubled or was never asked for"
        if result.custom_id != record.custom_id:
            return f"row {row} has another id than the input gives it"
    return None
