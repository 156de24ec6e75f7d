"""Removals: one transaction deletes a job from SQL; then its files are deleted.

job ended ─► one transaction: rows gone, a tombstone in `removals` ─► parts, dataset, input deleted

If this is killed, either nothing has happened, or the tombstone says what is left to delete. Then
the coordinator's search for garbage, `batchgen fsck --collect` or the next `batchgen rm` completes
it. The tombstone is kept for one more day, because a late worker may still write a file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from batchgen.core.states import InputState, JobState, ShardState
from batchgen.database.clock import is_live
from batchgen.database.database import Database, now_db
from batchgen.database.tables import (
    checkpoints,
    inputs,
    jobs,
    parts,
    removals,
    shard_is,
    shards,
    upsert,
)
from batchgen.database.transactions import Manager, reading, repeatable, transaction
from batchgen.errors import JobNotFound, NotAllowed
from batchgen.failpoints import reach
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.jobs import transitions
from batchgen.jobs.creation.input_rows import forget_input
from batchgen.jobs.records import outcomes, totals
from batchgen.jobs.records.job_records import JobRecord
from batchgen.storage.storage import Storage

KEPT_FOR: Final = 86_400.0  # seconds that a tombstone outlives its files

Keys = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A tombstone: the job is deleted from SQL, and its files must be deleted.

    There is one of an uploaded file too, if nothing else uses its bytes.
    """

    public_id: str
    # deleted too if no other job uses it; None once this is done
    input_sha256: str | None

    @property
    def folders(self) -> tuple[str, str]:
        """The storage keys of the folders that only this job used."""
        return f"parts/{self.public_id}", f"datasets/{self.public_id}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The storage keys of its input; empty once it is deleted, or if another job uses it."""
        sha256 = self.input_sha256
        return () if sha256 is None else (index_key(sha256), input_key(sha256))


Removals = list[Removal]


class Remover:
    """Removes jobs and their files. Several may run at once, and while jobs run."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._rows = RemovalManager(database)
        self._storage = storage

    def remove(self, public_id: str) -> None:
        """Remove a job and its files, or the files that an earlier removal of it left.

        Its input is deleted if no other job uses it. Raises JobNotFound, NotAllowed if the job may
        go on, StoreMismatch before anything is done, and OSError if a file cannot be deleted.
        """
        self._storage.check()
        removal = self._rows.begin(public_id)
        reach("rm.committed")
        self.finish(removal)

    def finish(self, removal: Removal) -> None:
        """Delete the files that a removed job has left, if there are any."""
        for key in removal.folders:
            self._storage.check()  # without the right store, files would only seem to be deleted
            remove_folder(self._storage.path(key))
            reach("rm.folder_deleted")
        if removal.input_sha256 is not None:
            self._rows.remove_input(removal.input_sha256, delete_input=self._delete_input)
            # From now on a submit may store the same input again, and that must not be deleted.
            self._rows.settle_input(removal.public_id)

    def discard(self, sha256: str) -> None:
        """Delete an input that was stored for what is refused now, if nothing uses it."""
        self._storage.check()
        self._rows.remove_input(sha256, delete_input=self._delete_input)

    def is_removed(self, public_id: str, *, tenant: str) -> bool:
        """Return whether a job of a tenant was removed, as long as its tombstone is kept."""
        return self._rows.is_removed(public_id, tenant=tenant)

    def unfinished(self) -> Removals:
        """Return the removals that have files left."""
        return [removal for removal in self._rows.all() if self.left(removal)]

    def left(self, removal: Removal) -> Keys:
        """Return the storage keys that a removed job has left."""
        keys = [*removal.folders]
        if removal.input_sha256 is not None and self._rows.is_unused(removal.input_sha256):
            keys += removal.inputs
        return [key for key in keys if self._storage.path(key).exists()]

    def forget(self) -> None:
        """Delete the tombstones of jobs that were removed long ago and have no file left."""
        self._rows.forget([one.public_id for one in self._rows.old() if not self.left(one)])

    def _delete_input(self, sha256: str) -> bool:
        for key in (index_key(sha256), input_key(sha256)):
            self._storage.delete(key)
            reach("rm.input_deleted")
        return True


class RemovalManager(Manager):
    """The transactions of a removal."""

    @repeatable
    def begin(self, connection: Connection, public_id: str) -> Removal:
        """Delete the rows of a job and insert a tombstone; if there is one already, return it.

        Raises JobNotFound, and NotAllowed if the job may go on.
        """
        job_id = select(jobs.c.id).where(jobs.c.public_id == public_id)
        found = connection.execute(job_id).scalar()
        if found is None:
            return _tombstone(connection, public_id)
        job = transitions.lock_job(connection, found)
        _refuse_unended(connection, job)
        if not job.state.ended:  # cancelled, and removed before its dataset was written
            transitions.count_usage(connection, job)
        _delete_rows(connection, job)
        removal = leave_tombstone(connection, public_id, job.input_sha256, tenant=job.tenant_id)
        reach("rm.committing")
        return removal

    @reading
    def is_removed(self, connection: Connection, public_id: str, *, tenant: str) -> bool:
        """Return whether there is a tombstone of a job of a tenant."""
        own = (removals.c.public_id == public_id, removals.c.tenant_id == tenant)
        return connection.execute(select(removals.c.public_id).where(*own)).first() is not None

    @reading
    def all(self, connection: Connection) -> Removals:
        """Return all tombstones, oldest first."""
        found = connection.execute(select(removals).order_by(removals.c.removed_at))
        return [_removal(row.public_id, row.input_sha256) for row in found]

    @reading
    def old(self, connection: Connection) -> Removals:
        """Return the removals that are more than a day old."""
        long_ago = removals.c.removed_at < now_db() - KEPT_FOR
        found = connection.execute(select(removals).where(long_ago))
        return [_removal(row.public_id, row.input_sha256) for row in found]

    @repeatable
    def forget(self, connection: Connection, public_ids: Keys) -> None:
        """Delete tombstones."""
        connection.execute(delete(removals).where(removals.c.public_id.in_(public_ids)))

    @repeatable
    def settle_input(self, connection: Connection, public_id: str) -> None:
        """Record that the input of a removed job is deleted, or that another job uses it."""
        settled = update(removals).where(removals.c.public_id == public_id)
        connection.execute(settled.values(input_sha256=None))

    @reading
    def is_unused(self, connection: Connection, sha256: str) -> bool:
        """Return whether no job uses an input."""
        used = connection.execute(select(inputs.c.sha256).where(inputs.c.sha256 == sha256))
        return used.first() is None

    @transaction
    def remove_input(
        self, connection: Connection, sha256: str, *, delete_input: Callable[[str], bool]
    ) -> bool:
        """Delete the files of an input that has no row; return whether they are deleted.

        A submit that has stored the files and not inserted the row yet waits for the end of this
        transaction. Then it sees that the files are gone and stores them again.
        """
        guard = upsert(connection, inputs).values(
            sha256=sha256,
            state=InputState.VALIDATING,
            bytes=0,
            n_rows=0,
            format="jsonl",
            created_at=now_db(),
        )
        inserted = guard.on_conflict_do_nothing().returning(inputs.c.sha256)
        if connection.execute(inserted).first() is None:
            return False
        connection.execute(delete(inputs).where(inputs.c.sha256 == sha256))
        return delete_input(sha256)


def leave_tombstone(connection: Connection, public_id: str, sha256: str, *, tenant: str) -> Removal:
    """Insert the tombstone of a job, or of an uploaded file, whose row was deleted just now."""
    connection.execute(
        insert(removals).values(
            public_id=public_id, input_sha256=sha256, removed_at=now_db(), tenant_id=tenant
        )
    )
    return Removal(public_id=public_id, input_sha256=sha256)


def remove_folder(path: Path) -> None:
    """Remove a folder and all below it; other processes may do the same. Raise OSError."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    while path.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)


def _refuse_unended(connection: Connection, job: JobRecord) -> None:
    """Raise NotAllowed if a worker or finaliser may still write files of the job."""
    reason = ""
    match job.state:
        case JobState.QUEUED | JobState.RUNNING:
            reason = f"Cancel it first: batchgen cancel {job.public_id}"
        case JobState.STOPPING if _is_leased(connection, job):
            reason = "A worker is handing its rows back; try again in a moment."
        case JobState.FINALIZING if job.stop_reason is None or _is_being_written(connection, job):
            reason = f"Its dataset is being written: batchgen wait {job.public_id}"
    if reason:
        raise NotAllowed(f"Job {job.public_id} is {job.state}. {reason}")


def _is_leased(connection: Connection, job: JobRecord) -> bool:
    leased = select(shards.c.id).where(
        shards.c.job_id == job.id,
        shard_is(ShardState.LEASED),
        is_live(shards.c.lease_expires_at, shards.c.lease_seconds),
    )
    return connection.execute(leased.limit(1)).first() is not None


def _is_being_written(connection: Connection, job: JobRecord) -> bool:
    is_held = is_live(jobs.c.final_expires_at, jobs.c.final_seconds)
    held = select(jobs.c.id).where(jobs.c.id == job.id, is_held)
    return connection.execute(held).first() is not None


def _delete_rows(connection: Connection, job: JobRecord) -> None:
    of_job = select(shards.c.id).where(shards.c.job_id == job.id)
    connection.execute(delete(checkpoints).where(checkpoints.c.shard_id.in_(of_job)))
    connection.execute(delete(parts).where(parts.c.job_id == job.id))
    outcomes.keep_outcome(connection, job)
    totals.forget(connection, job.id)
    connection.execute(delete(shards).where(shards.c.job_id == job.id))
    connection.execute(delete(jobs).where(jobs.c.id == job.id))
    forget_input(connection, job.input_sha256)


def _tombstone(connection: Connection, public_id: str) -> Removal:
    row = connection.execute(
        select(removals).where(removals.c.public_id == public_id)
    ).one_or_none()
    if row is None:
        raise JobNotFound(f"No job {public_id}. See `batchgen ls`.")
    return _removal(row.public_id, row.input_sha256)


def _removal(public_id: str, input_sha256: str | None) -> Removal:
    return Removal(public_id=public_id, input_sha256=input_sha256)
