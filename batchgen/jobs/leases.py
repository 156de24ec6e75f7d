"""Leases: the right of one worker to compute one shard, fenced by an epoch that only grows."""

from __future__ import annotations

import uuid
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Row,
    ScalarSelect,
    Select,
    Update,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)

from batchgen.core.states import JobState, ShardState
from batchgen.database.clock import LONGEST_DELAY, ends_again, is_due, is_overlong
from batchgen.database.database import now_db
from batchgen.database.tables import checkpoints, jobs, parts, shard_is, shards, storable, upsert
from batchgen.database.transactions import Manager, reading, repeatable, transaction
from batchgen.errors import Fenced
from batchgen.jobs import transitions
from batchgen.jobs.dispatching.openings import is_open
from batchgen.jobs.records.job_records import CheckpointRecord, Lease, Renewal
from batchgen.jobs.records.part_rows import register

if TYPE_CHECKING:
    from batchgen.dataset.parts import PartInfo  # importing pyarrow is slow


NO_LEASE: dict[str, Any] = {
    "lease_owner": None,
    "lease_expires_at": None,
    "lease_seconds": None,
    "enqueued_at": None,
}

#: A released shard of a job in one of these states is ready again; else it is stopped.
GOES_ON = (JobState.QUEUED, JobState.RUNNING)


class LeaseManager(Manager):
    """The transactions of a worker on one shard, and of the reaper on all shards."""

    @transaction
    def claim(
        self, connection: Connection, shard_id: int, *, owner: str, ttl: float
    ) -> Lease | None:
        """Lease a shard for `ttl` seconds if it is free and its job wants it computed now.

        Returns None if the message is to be dropped. The job must be running, not paused, and its
        window open by the database's clock. The shard must be ready and due, or its last lease
        expired. `owner` (host and pid) gets a new suffix, so that each claim has another owner.
        """
        asked = {"shard": shard_id, "owner": f"{owner}/{uuid.uuid4().hex}", "ttl": ttl}
        found = connection.execute(_job_of_shard(), asked).one_or_none()
        if found is None or not is_open(connection, found, found.now):
            return None
        claimed = connection.execute(_claim(), asked).one_or_none()
        return None if claimed is None else _lease(found, claimed)

    @repeatable
    def renew(
        self,
        connection: Connection,
        lease: Lease,
        *,
        rows_done: int,
        ttl: float,
        tokens_done: int = 0,
        tokens_running: int = 0,
        deaths: int | None = None,
    ) -> Renewal:
        """Extend a lease to `ttl` seconds from now and report the rows finished so far.

        `tokens_done` and `tokens_running` are the tokens generated for finished rows and for rows
        that are being computed. `deaths` is the sum of engine deaths that rows of the shard may
        have caused. Returns the current state of the job; raises Fenced if the lease is lost.
        """
        renewed = connection.execute(
            update(shards)
            .where(held(lease))
            .values(
                lease_expires_at=now_db() + ttl,
                lease_seconds=ttl,
                rows_done=rows_done,
                tokens_done=tokens_done,
                tokens_running=tokens_running,
                deaths=lease.deaths if deaths is None else deaths,
            )
            .returning(shards.c.give_up)
        ).one_or_none()
        if renewed is None:
            raise Fenced
        wanted = select(jobs.c.state, jobs.c.paused).where(jobs.c.id == lease.job_id)
        job = connection.execute(wanted).one()
        return Renewal(state=JobState(job.state), paused=job.paused, give_up=renewed.give_up)

    @repeatable
    def checkpoint(self, connection: Connection, lease: Lease, part: PartInfo) -> str | None:
        """Register the finished rows of an unfinished shard for the worker that claims it next.

        Returns the storage key of the checkpoint that this one replaces; raises Fenced.
        """
        saved = connection.execute(update(shards).where(held(lease)).values(rows_done=part.n_rows))
        if not saved.rowcount:
            raise Fenced
        row = {
            "epoch": lease.epoch,
            "path": part.path,
            "n_rows": part.n_rows,
            "sha256": part.sha256,
        }
        former = connection.execute(
            select(checkpoints.c.path).where(checkpoints.c.shard_id == lease.shard_id)
        ).scalar()
        connection.execute(
            upsert(connection, checkpoints)
            .values(shard_id=lease.shard_id, **row)
            .on_conflict_do_update(index_elements=["shard_id"], set_=row)
        )
        # A repetition finds the path that its first run wrote: it must not be deleted.
        return None if former == part.path else former

    @reading
    def checkpoint_of(self, connection: Connection, shard_id: int) -> CheckpointRecord | None:
        """Return the registered checkpoint of a shard."""
        row = connection.execute(
            select(checkpoints).where(checkpoints.c.shard_id == shard_id)
        ).one_or_none()
        return None if row is None else CheckpointRecord(**row._mapping)

    @repeatable
    def commit(self, connection: Connection, lease: Lease, part: PartInfo) -> None:
        """Make a part the final result of the shard; raise Fenced.

        If the outcome of COMMIT is unknown, the repetition reads it from `parts`: this part under
        this epoch is success, another part is Fenced, none means to commit again. So the caller
        may call this again after DatabaseUnavailable.
        """
        # FOR SHARE: the job cannot leave running/stopping until this transaction ends.
        job = select(jobs.c.state).where(jobs.c.id == lease.job_id).with_for_update(read=True)
        state = connection.execute(job).scalar()
        if state is None or not JobState(state).accepts_parts or not _commit(connection, lease):
            if _is_registered(connection, lease, part):
                return
            raise Fenced
        register(connection, lease.shard_id, lease.job_id, lease.epoch, part)

    @repeatable
    def release(
        self,
        connection: Connection,
        lease: Lease,
        *,
        error: str | None = None,
        delay: float = 0.0,
        failed: bool = False,
    ) -> None:
        """Release an unfinished shard.

        It is ready again after `delay` seconds, or stopped if its job is. `lost` and `deaths` are
        kept. `failed` counts a failure that a repetition may not fix. Raises Fenced.
        """
        assert delay <= LONGEST_DELAY, "the shard would be taken for one of a clock set back"
        job = select(jobs.c.state).where(jobs.c.id == lease.job_id).with_for_update(read=True)
        state = connection.execute(job).scalar()
        values: dict[str, Any] = {
            "state": ShardState.READY if state in GOES_ON else ShardState.STOPPED,
            "rows_done": _checkpointed(),
            "not_before": now_db() + delay if delay else 0.0,
        }
        if failed:
            values["failures"] = lease.failures + 1
        if error is not None:
            values["last_error"] = storable(error)
        released = connection.execute(
            update(shards).where(held(lease)).values(**values, **NO_LEASE)
        )
        if not released.rowcount and not _is_free(connection, lease):
            raise Fenced

    @repeatable
    def reap(self, connection: Connection) -> int:
        """End every lease that ran out and return how many; several may run at once.

        If the clock was set back and a lease would last too long, it is shortened to its normal
        length from now.
        """
        overlong = is_overlong(shards.c.lease_expires_at, shards.c.lease_seconds)
        connection.execute(
            update(shards)
            .where(shard_is(ShardState.LEASED), shards.c.lease_expires_at > now_db(), overlong)
            .values(lease_expires_at=ends_again(shards.c.lease_seconds))
        )
        goes_on = _job_in(GOES_ON)
        expired = connection.execute(
            update(shards)
            .where(shard_is(ShardState.LEASED), shards.c.lease_expires_at < now_db())
            .values(
                state=case((goes_on, ShardState.READY), else_=ShardState.STOPPED),
                lost=shards.c.lost + 1,
                rows_done=_checkpointed(),
                **NO_LEASE,
            )
        )
        # A shard may have been released while its job was being stopped.
        for job_id in connection.execute(_HALTED_WITH_READY_SHARDS).scalars().all():
            transitions.stop_ready_shards(connection, job_id)
        return expired.rowcount


_HALTED_WITH_READY_SHARDS = select(jobs.c.id).where(
    jobs.c.state.in_((JobState.STOPPING, JobState.FAILED)),
    select(shards.c.id)
    .where(shards.c.job_id == jobs.c.id, shard_is(ShardState.READY))
    .correlate(jobs)
    .exists(),
)


# The statements of a claim are built once, because building takes longer than running.
@cache
def _job_of_shard() -> Select[Any]:
    return (
        select(jobs, now_db().label("now"))
        .join(shards, shards.c.job_id == jobs.c.id)
        .where(shards.c.id == bindparam("shard"))
    )


@cache
def _claim() -> Update:
    due = and_(shard_is(ShardState.READY), is_due())
    abandoned = and_(shard_is(ShardState.LEASED), shards.c.lease_expires_at < now_db())
    return (
        update(shards)
        .where(
            shards.c.id == bindparam("shard"),
            _job_in((JobState.RUNNING,), jobs.c.paused.is_(False)),
            or_(due, abandoned),
        )
        .values(
            state=ShardState.LEASED,
            epoch=shards.c.epoch + 1,
            attempts=shards.c.attempts + 1,
            lost=shards.c.lost + case((shard_is(ShardState.LEASED), 1), else_=0),
            rows_done=_checkpointed(),
            tokens_done=0,
            tokens_running=0,
            enqueued_at=None,
            give_up=False,
            lease_owner=bindparam("owner"),
            lease_expires_at=now_db() + bindparam("ttl", type_=Double()),
            lease_seconds=bindparam("ttl", type_=Double()),
        )
        .returning(shards)
    )


def _lease(job: Row[Any], shard: Row[Any]) -> Lease:
    return Lease(
        shard_id=shard.id,
        epoch=shard.epoch,
        owner=shard.lease_owner,
        job_id=job.id,
        job_public_id=job.public_id,
        tenant_id=job.tenant_id,
        pos_start=shard.pos_start,
        pos_end=shard.pos_end,
        attempts=shard.attempts,
        lost=shard.lost,
        deaths=shard.deaths,
        failures=shard.failures,
        input_sha256=job.input_sha256,
        index_path=job.index_path,
        model=job.model,
        model_sha256=job.model_sha256,
        params=orjson.loads(job.params),
    )


def held(lease: Lease) -> ColumnElement[bool]:
    """Return the fence: the condition that the shard is leased under the epoch of this lease."""
    return and_(
        shards.c.id == lease.shard_id,
        shards.c.job_id == lease.job_id,
        shards.c.epoch == lease.epoch,
        shard_is(ShardState.LEASED),
    )


def _job_in(states: tuple[JobState, ...], *also: ColumnElement[bool]) -> ColumnElement[bool]:
    return (
        select(jobs.c.id)
        .where(jobs.c.id == shards.c.job_id, jobs.c.state.in_(states), *also)
        .correlate(shards)
        .exists()
    )


def _checkpointed() -> ColumnElement[int]:
    saved: ScalarSelect[int] = (
        select(checkpoints.c.n_rows)
        .where(checkpoints.c.shard_id == shards.c.id)
        .correlate(shards)
        .scalar_subquery()
    )
    return func.coalesce(saved, 0)


def _commit(connection: Connection, lease: Lease) -> bool:
    committed = connection.execute(
        update(shards)
        .where(held(lease))
        .values(state=ShardState.COMMITTED, rows_done=shards.c.n_rows, **NO_LEASE)
    )
    return committed.rowcount == 1


def _is_registered(connection: Connection, lease: Lease, part: PartInfo) -> bool:
    found = connection.execute(
        select(parts.c.epoch, parts.c.sha256, parts.c.path).where(
            parts.c.shard_id == lease.shard_id
        )
    ).one_or_none()
    return found is not None and tuple(found) == (lease.epoch, part.sha256, part.path)


def _is_free(connection: Connection, lease: Lease) -> bool:
    found = connection.execute(
        select(shards.c.id).where(
            shards.c.id == lease.shard_id,
            shards.c.epoch == lease.epoch,
            shard_is(ShardState.READY, ShardState.STOPPED),
        )
    )
    return found.first() is not None
