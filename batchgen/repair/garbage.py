"""Garbage: files that no row of SQL names and that none will name later.

parts/<job>/7.e2.<uuid>.parquet     shard 7 is past epoch 2, or final, or its job has ended
parts/<job>/.7.e2.….tmp             the same, left by a write that did not end
datasets/<job>/e1/                  the job is past final epoch 1, or has ended with another
inputs/<sha256>, ….index            no job was ever submitted on it
inputs/.….tmp                       left by a submit that did not end
parts/<job>/, datasets/<job>/       the job was removed, files of any age; also its input

Other garbage must also be old, by the file system's clock. All other files are kept: if the
database does not know a job, its backup may not be restored yet.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select, union_all

from batchgen.core.states import ShardState
from batchgen.database.clock import SLACK
from batchgen.database.tables import checkpoints, inputs, jobs, parts, removals, shards
from batchgen.database.transactions import Manager, reading, transaction
from batchgen.dataset.part_files import JOB_ID, PartName
from batchgen.errors import BatchgenError, JobNotFound, Unavailable
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.jobs import transitions
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.removals import Removal, RemovalManager, Remover
from batchgen.jobs.store import Store
from batchgen.storage.storage import Storage

MIN_AGE: Final = 3600.0  # seconds
# The minimum age of an upload, in ages: a submit from a pipe may wait long for its first line.
UPLOAD_AGES: Final = 24
AT_ONCE = 200  # files removed while one job is locked
# Errors of a single job: a file that cannot be deleted, a row that cannot be read.
TROUBLES = (OSError, ValueError, BatchgenError)

_GENERATION: Final = re.compile(r"e(\d{1,18})")
_INPUT: Final = re.compile(r"([0-9a-f]{64})(\.index)?")
_UPLOAD: Final = re.compile(r"\..+\.tmp")

Delete = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """One file, or one generation of a dataset, that will never be read."""

    # storage key
    key: str
    bytes: int


class Collector:
    """Finds and removes garbage. Several may run at once, and while jobs run.

    for garbage in Collector(store, storage).collect():
        print(garbage.key)                          # it is gone
    """

    def __init__(self, store: Store, storage: Storage, *, min_age: float = MIN_AGE) -> None:
        """Search files in `storage` that have not changed for `min_age` seconds."""
        self._storage = storage
        self._min_age = min_age
        self._rows = GarbageManager(store.database)
        self._removals = RemovalManager(store.database)
        self._remover = Remover(store.database, storage)
        #: Called with a job and the error that keeps its files; the search goes on with other jobs.
        self.on_trouble: Callable[[str, Exception], None] = _raise

    def find(self) -> Iterator[Garbage]:
        """Yield the garbage that `collect` would remove; raise StoreMismatch."""
        self._storage.check()
        for removal in self._remover.unfinished():
            yield from self._left(removal)
        for _, found in self._of_jobs():
            yield from found
        for _, found in self._of_inputs():
            yield from found
        yield from self._of_uploads()

    def collect(self) -> Iterator[Garbage]:
        """Remove garbage, and yield each after its removal; the caller may stop at any time.

        Raises StoreMismatch if the storage does not belong to the database.
        """
        self._storage.check()
        yield from self._of_removals()
        for job, found in self._of_jobs():
            try:
                yield from self._collect_of(job, found)
            except TROUBLES as error:
                self._trouble(job, error)
        for sha256, found in self._of_inputs():
            if self._removals.remove_input(sha256, delete_input=self._delete_input):
                yield from found
        for garbage in self._of_uploads():
            self._delete(garbage.key)
            yield garbage

    def _collect_of(self, job: str, found: list[Garbage]) -> Iterator[Garbage]:
        for start in range(0, len(found), AT_ONCE):
            some = {garbage.key: garbage for garbage in found[start : start + AT_ONCE]}
            removed = self._rows.remove(job, tuple(some), delete_file=self._delete)
            yield from (some[key] for key in removed)

    def _trouble(self, job: str, error: Exception) -> None:
        if isinstance(error, Unavailable):  # the same for all jobs
            raise error
        self.on_trouble(job, error)

    def unknown(self) -> list[str]:
        """Return the ids of jobs that have files here and are unknown to the database."""
        found = {
            folder.name
            for top in ("parts", "datasets")
            for folder in _folders(self._storage.path(top))
            if JOB_ID.fullmatch(folder.name) and any(folder.iterdir())
        }
        return sorted(found - self._rows.known(found))

    def _of_removals(self) -> Iterator[Garbage]:
        """Finish removals that were interrupted, and yield the files that they had left."""
        for removal in self._remover.unfinished():
            try:
                found = self._left(removal)
                self._remover.finish(removal)
            except TROUBLES as error:
                self._trouble(removal.public_id, error)
                continue
            yield from found
        self._remover.forget()

    def _left(self, removal: Removal) -> list[Garbage]:
        keys = self._remover.left(removal)
        return [Garbage(key=key, bytes=_measure(self._storage.path(key))[1]) for key in keys]

    def _of_jobs(self) -> Iterator[tuple[str, list[Garbage]]]:
        old: dict[str, list[Garbage]] = {}
        for top in ("parts", "datasets"):
            now = _clock(self._storage.path(top))
            for folder in _folders(self._storage.path(top)):
                if JOB_ID.fullmatch(folder.name):
                    aged = self._aged(folder, f"{top}/{folder.name}", now - self._min_age)
                    old.setdefault(folder.name, []).extend(aged)
        # Files are listed before rows are read, so that a file registered meanwhile is seen.
        for job, found in old.items():
            try:
                unneeded = set(self._rows.unneeded(job, [garbage.key for garbage in found]))
            except TROUBLES as error:
                self._trouble(job, error)
                continue
            garbage = [one for one in found if one.key in unneeded]
            if garbage:
                yield job, garbage

    def _of_inputs(self) -> Iterator[tuple[str, list[Garbage]]]:
        # With an older backup or the wrong database, inputs must not be deleted.
        if not self._storage.check() or self.unknown():
            return
        folder = self._storage.path("inputs")
        old: dict[str, list[Garbage]] = {}
        for one in self._aged(folder, "inputs", _clock(folder) - self._min_age):
            if name := _INPUT.fullmatch(one.key.removeprefix("inputs/")):
                old.setdefault(name[1], []).append(one)
        for sha256 in self._rows.orphans(old):
            yield sha256, old[sha256]

    def _of_uploads(self) -> Iterator[Garbage]:
        folder = self._storage.path("inputs")
        for one in self._aged(folder, "inputs", _clock(folder) - self._min_age * UPLOAD_AGES):
            if _UPLOAD.fullmatch(one.key.removeprefix("inputs/")):
                yield one

    def _aged(self, folder: Path, prefix: str, before: float) -> Iterator[Garbage]:
        now = _clock(folder)
        for path in _entries(folder):
            touched, size = _measure(path)
            if touched > now + SLACK:
                _touch(path)  # the clock was set back: count the age from now
            if touched <= before:
                yield Garbage(key=f"{prefix}/{path.name}", bytes=size)

    def _delete(self, key: str) -> None:
        path = self._storage.path(key)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # another collector may remove it too
        else:
            self._storage.delete(key)

    def _delete_input(self, sha256: str) -> bool:
        """Remove an input if it is still old: a submit may have stored it again meanwhile."""
        keys = (index_key(sha256), input_key(sha256))
        before = _clock(self._storage.path("inputs")) - self._min_age
        paths = [path for key in keys if (path := self._storage.path(key)).exists()]
        if any(_measure(path)[0] > before for path in paths):
            return False
        for key in keys:
            self._storage.delete(key)
        return True


Keys = list[str]


class GarbageManager(Manager):
    """The transactions that decide by SQL which files are garbage."""

    @reading
    def unneeded(self, connection: Connection, job: str, keys: Iterable[str]) -> Keys:
        """Return the storage keys among `keys` that are garbage of a job, given by public id."""
        found = connection.execute(select(jobs).where(jobs.c.public_id == job)).one_or_none()
        return [] if found is None else _unneeded(connection, JobRecord.from_row(found), keys)

    @transaction
    def remove(
        self, connection: Connection, job: str, keys: Iterable[str], *, delete_file: Delete
    ) -> Keys:
        """Delete the garbage among `keys` and return it; no part can be registered meanwhile."""
        job_id = connection.execute(select(jobs.c.id).where(jobs.c.public_id == job)).scalar()
        try:
            record = transitions.lock_job(connection, job_id or 0)
        except JobNotFound:  # `batchgen rm` has removed the job just now
            return []
        unneeded = _unneeded(connection, record, keys)
        for key in unneeded:
            delete_file(key)
        return unneeded

    @reading
    def known(self, connection: Connection, public_ids: Iterable[str]) -> set[str]:
        """Return the jobs among these that exist or have a tombstone."""
        names = union_all(select(jobs.c.public_id), select(removals.c.public_id))
        return set(connection.execute(names).scalars()) & set(public_ids)

    @reading
    def orphans(self, connection: Connection, sums: Iterable[str]) -> Keys:
        """Return the values of SHA-256 among `sums` that no row of an input has."""
        known = set(connection.execute(select(inputs.c.sha256)).scalars())
        return [sha256 for sha256 in sums if sha256 not in known]


def _unneeded(connection: Connection, job: JobRecord, keys: Iterable[str]) -> Keys:
    named = _named(connection, job)
    of_job = select(shards.c.id, shards.c.epoch, shards.c.state).where(shards.c.job_id == job.id)
    now = {row.id: (row.epoch, ShardState(row.state)) for row in connection.execute(of_job)}

    def is_past(key: str) -> bool:
        name = key.rpartition("/")[2]
        if key.startswith("datasets/"):
            generation = _GENERATION.fullmatch(name)
            return generation is not None and (
                job.state.ended or int(generation[1]) < job.final_epoch
            )
        part = PartName.parse(name)
        if part is None:
            return False
        if job.state.ended:
            return True
        epoch, state = now.get(part.shard, (0, ShardState.READY))
        return state.final or part.epoch < epoch

    return [key for key in keys if key not in named and is_past(key)]


def _named(connection: Connection, job: JobRecord) -> set[str]:
    registered = select(parts.c.path).where(parts.c.job_id == job.id)
    saved = (
        select(checkpoints.c.path)
        .join(shards, shards.c.id == checkpoints.c.shard_id)
        .where(shards.c.job_id == job.id)
    )
    written = select(jobs.c.dataset_path).where(
        jobs.c.dataset_path.startswith(f"datasets/{job.public_id}/")
    )
    return set(connection.execute(union_all(registered, saved, written)).scalars())


def _clock(folder: Path) -> float:
    """Return the time by the clock of the file system of a folder, which may be a server's."""
    try:
        os.utime(folder)
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _raise(job: str, error: Exception) -> None:
    raise error


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in _entries(folder) if path.is_dir() and not path.is_symlink())


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except FileNotFoundError:
        return


def _touch(path: Path) -> None:
    below = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    for each in (path, *below):
        with suppress(OSError):  # it was just moved or removed, or another user owns it
            os.utime(each, follow_symlinks=False)


def _measure(path: Path) -> tuple[float, int]:
    """Return the latest change of a file below a path, and the bytes of all files there."""
    try:
        stats = [path.lstat()]
        if path.is_dir() and not path.is_symlink():
            stats += [below.lstat() for below in path.rglob("*")]
    except FileNotFoundError:  # it was just moved or removed
        return float("inf"), 0
    return max(stat.st_mtime for stat in stats), sum(stat.st_size for stat in stats)
