"""Adoption: register parts on disk that a database restored from an older backup does not know.

restore the backup ─► `batchgen fsck --adopt` ─► start coordinator and workers

The footer of a part names its job and shard. If a part is complete and its shard is not computed
yet, a copy of it is registered under a new epoch above all earlier ones. So a late worker is fenced
and can only remove its own file. All other files are not changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from batchgen.core.states import JobState, ShardState
from batchgen.database.clock import SLACK, UNKNOWN_LEASE, is_overlong
from batchgen.database.database import now_db
from batchgen.database.tables import jobs, parts, shard_is, shards
from batchgen.database.transactions import Manager, reading, repeatable
from batchgen.dataset.openai_output import NOT_ASKED
from batchgen.dataset.part_files import PartFile, list_part_files
from batchgen.dataset.parts import PartFooter, inspect_part, part_key, read_footer
from batchgen.errors import Corrupt, JobNotFound
from batchgen.jobs import transitions
from batchgen.jobs.leases import NO_LEASE
from batchgen.jobs.records.job_records import JobRecord, PartRecord, ShardRecord
from batchgen.jobs.records.part_rows import register, unregister
from batchgen.jobs.store import Store
from batchgen.repair.job_files import check_part, fallen_epochs
from batchgen.storage.storage import Storage

if TYPE_CHECKING:
    from batchgen.dataset.parts import PartInfo


class Outcome(StrEnum):
    """The result for a file or a shard."""

    ADOPTED = "adopted"  #: The file is the shard's part now.
    REOPENED = "reopened"  #: The part of the shard was lost; the shard is computed again.
    RAISED = "raised"  #: The shard's epoch was raised above those of its files.
    LEFT = "left"  #: Nothing was changed, for the reason given.


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome for one file, shard or folder."""

    outcome: Outcome
    # storage key of a file or of a job's folder
    key: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One job with its shards and parts, read from SQL."""

    job: JobRecord
    # all shards, also split ones
    shards: tuple[ShardRecord, ...]
    # {storage key: part}
    registered: Mapping[str, PartRecord]
    # the database's clock
    now: float

    def shard_of(self, footer: PartFooter) -> ShardRecord | None:
        """Return the leaf shard with exactly the positions of a file, None if there is none."""
        for shard in self.shards:
            wanted = (footer.pos_start, footer.pos_end)
            if shard.state is not ShardState.SPLIT and (shard.pos_start, shard.pos_end) == wanted:
                return shard
        return None


class Adopter:
    """Registers in SQL the parts that are on disk. Workers may run, but best start later."""

    def __init__(self, store: Store, storage: Storage) -> None:
        self._storage = storage
        self._rows = AdoptionManager(store.database)

    def adopt(self) -> Iterator[Finding]:
        """Repair all that is possible, and yield one finding for each file and shard."""
        files = list_part_files(self._storage)
        for public_id in sorted({*files, *self._rows.running()}):
            key = f"parts/{public_id}"
            try:
                situation = self._rows.situation(public_id)
            except JobNotFound:
                yield _left(key, "this database does not know the job; restore a newer backup")
            else:
                yield from self._adopt_job(situation, files.get(public_id, []))

    def _adopt_job(self, situation: Situation, files: list[PartFile]) -> Iterator[Finding]:
        if situation.job.state is JobState.RUNNING:
            yield from self._reopen(situation)
        open_files = [file for file in files if file.key not in situation.registered]
        for file in sorted(open_files, key=lambda file: file.name.epoch, reverse=True):
            if not (file.name.is_checkpoint or file.name.is_unfinished):
                # Read again for each file, because the shard of an adopted file is committed now.
                yield self._adopt_file(self._rows.situation(situation.job.public_id), file)
        yield from self._raise_epochs(situation.job.public_id, files)

    def _adopt_file(self, situation: Situation, file: PartFile) -> Finding:
        try:
            shard, part = self._match(situation, file)
        except Corrupt as error:
            return _left(file.key, error.message)
        epoch = max(shard.epoch, file.name.epoch) + 1
        copy = replace(part, path=part_key(situation.job.public_id, shard.id, epoch))
        with self._storage.open(file.key) as source, self._storage.write(copy.path) as pending:
            shutil.copyfileobj(source, pending.file)
        if not self._rows.adopt(shard, copy, epoch):
            self._storage.delete(copy.path)
            return _left(file.key, "its shard was taken meanwhile")
        return Finding(outcome=Outcome.ADOPTED, key=file.key, detail=f"{part.n_rows} rows")

    def _match(self, situation: Situation, file: PartFile) -> tuple[ShardRecord, PartInfo]:
        """Return the shard whose complete part the file is; raise Corrupt if there is none."""
        footer = read_footer(self._storage, file.key)
        shard = situation.shard_of(footer)
        if shard is None or not _is_of(footer, situation.job):
            raise Corrupt("it is of other rows, another input or another model")
        reason = _closed(situation, shard)
        if reason is not None:
            raise Corrupt(reason)
        found = inspect_part(self._storage, file.key)
        if found.rows != list(range(shard.pos_start, shard.pos_end)):
            raise Corrupt("it is not complete")
        if situation.job.stop_reason is None and not found.codes.isdisjoint(NOT_ASKED):
            raise Corrupt("it is of a time when the job was stopped")
        return shard, found.info

    def _reopen(self, situation: Situation) -> Iterator[Finding]:
        if not self._storage.path("parts").is_dir():
            yield _left("parts", "it is not there; see that the disk of the home is mounted")
            return
        for key, part in situation.registered.items():
            problem = check_part(self._storage, key, part.bytes, part.sha256)
            if problem is not None and self._rows.reopen(part):
                detail = f"the part {problem}; its shard is computed again"
                yield Finding(outcome=Outcome.REOPENED, key=key, detail=detail)

    def _raise_epochs(self, public_id: str, files: list[PartFile]) -> Iterator[Finding]:
        """Raise the epochs of shards above those of their files, so that none is used twice."""
        for fallen in fallen_epochs(self._rows.situation(public_id).shards, files):
            if self._rows.raise_epoch(fallen.shard.id, fallen.epoch):
                detail = f"shard {fallen.shard.id} goes on from epoch {fallen.epoch}"
                yield Finding(outcome=Outcome.RAISED, key=fallen.key, detail=detail)
            else:
                yield _left(fallen.key, f"shard {fallen.shard.id} is leased; try again later")


class AdoptionManager(Manager):
    """The transactions that register, reopen and fence shards to match the files."""

    @reading
    def running(self, connection: Connection) -> list[str]:
        """Return the public ids of the jobs whose shards may be computed again."""
        wanted = select(jobs.c.public_id).where(jobs.c.state == JobState.RUNNING)
        return list(connection.execute(wanted).scalars())

    @reading
    def situation(self, connection: Connection, public_id: str) -> Situation:
        """Return a job with its shards and parts; raise JobNotFound."""
        row = connection.execute(select(jobs).where(jobs.c.public_id == public_id)).one_or_none()
        if row is None:
            raise JobNotFound
        job = JobRecord.from_row(row)
        of_job = connection.execute(select(shards).where(shards.c.job_id == job.id))
        registered = connection.execute(select(parts).where(parts.c.job_id == job.id))
        return Situation(
            job=job,
            shards=tuple(map(ShardRecord.from_row, of_job)),
            registered={row.path: PartRecord(**row._mapping) for row in registered},
            now=self.database.now(connection),
        )

    @repeatable
    def adopt(self, connection: Connection, shard: ShardRecord, part: PartInfo, epoch: int) -> bool:
        """Commit a shard that no worker computes, with a part under a new epoch.

        Returns whether the part counts now: False if the shard has changed since it was read.
        """
        if transitions.lock_job(connection, shard.job_id).state.accepts_parts:
            committed = connection.execute(
                update(shards)
                .where(_is_unheld(shard.id), shards.c.epoch == shard.epoch)
                .values(
                    state=ShardState.COMMITTED, epoch=epoch, rows_done=shards.c.n_rows, **NO_LEASE
                )
            )
            if committed.rowcount:
                register(connection, shard.id, shard.job_id, epoch, part)
                return True
        mine = select(parts.c.shard_id).where(parts.c.path == part.path)
        return connection.execute(mine).first() is not None

    @repeatable
    def reopen(self, connection: Connection, part: PartRecord) -> bool:
        """Let a shard of a running job be computed again, because its part is lost.

        No other transition leaves `committed`. The rows are in no other file and in no dataset.
        """
        if transitions.lock_job(connection, part.job_id).state is not JobState.RUNNING:
            return False
        if unregister(connection, part):
            connection.execute(
                update(shards)
                .where(shards.c.id == part.shard_id)
                .values(state=ShardState.READY, epoch=shards.c.epoch + 1, rows_done=0)
            )
        return True

    @repeatable
    def raise_epoch(self, connection: Connection, shard_id: int, epoch: int) -> bool:
        """Raise the epoch of a shard that no worker computes, so the next claim is above it."""
        raised = connection.execute(
            update(shards).where(_is_unheld(shard_id), shards.c.epoch <= epoch).values(epoch=epoch)
        )
        return raised.rowcount > 0


def _is_unheld(shard_id: int) -> ColumnElement[bool]:
    ended = or_(
        shards.c.lease_expires_at < now_db(),
        is_overlong(shards.c.lease_expires_at, shards.c.lease_seconds),
    )
    expired = and_(shard_is(ShardState.LEASED), ended)
    return and_(shards.c.id == shard_id, or_(shard_is(ShardState.READY), expired))


def _is_of(footer: PartFooter, job: JobRecord) -> bool:
    # If a job has an index of its own, its positions are not the rows of the input.
    return job.index_path is None and (job.public_id, job.input_sha256, job.model_sha256) == (
        footer.job,
        footer.input_sha256,
        footer.model_sha256,
    )


def _closed(situation: Situation, shard: ShardRecord) -> str | None:
    """Return why a shard cannot take a part now, None if it can."""
    if not situation.job.state.accepts_parts:
        return f"its job is {situation.job.state}"
    if shard.state.final:
        return f"its shard is {shard.state}"
    if shard.lease_expires_at is not None and 0.0 <= shard.lease_expires_at - situation.now <= (
        (shard.lease_seconds or UNKNOWN_LEASE) + SLACK
    ):
        return "its shard is being computed"
    return None


def _left(key: str, reason: str) -> Finding:
    return Finding(outcome=Outcome.LEFT, key=key, detail=reason)
