"""Conditions on times in SQL that hold even if the database's clock is set back.

A time that is further in the future than it can be is stale.

now ──── lease_expires_at ─ now + lease_seconds ──│── stale: the lease ends one lease time from now
now ──── heartbeat_at, enqueued_at ───────────────│── stale: ignored

A step back delays work by at most one lease time: a live holder renews its lease, and the lease of
a dead holder runs out. Times that a user chose (`not_before`, deadlines, windows) have no limit.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, case, func, or_, select

from batchgen.database.database import now_db
from batchgen.database.tables import jobs, parts, shards

SLACK = 1.0  # seconds by which two readings of the clock may differ
LONGEST_DELAY = 600.0  # seconds, the longest time that a shard is delayed
UNKNOWN_LEASE = 60.0  # seconds of a lease that has no `lease_seconds`


def is_overlong(
    expires_at: ColumnElement[float], seconds: ColumnElement[float]
) -> ColumnElement[bool]:
    """Return the condition that a lease ends later than one that was renewed just now."""
    return expires_at > ends_again(seconds) + SLACK


def is_live(expires_at: ColumnElement[float], seconds: ColumnElement[float]) -> ColumnElement[bool]:
    """Return the condition that a lease has not run out and does not end too far ahead."""
    return and_(expires_at >= now_db(), expires_at <= ends_again(seconds) + SLACK)


def ends_again(seconds: ColumnElement[float]) -> ColumnElement[float]:
    """Return the end of a lease that is renewed now."""
    return now_db() + func.coalesce(seconds, UNKNOWN_LEASE)


def is_due() -> ColumnElement[bool]:
    """Return the condition that the delay of a shard is over."""
    kept_until = shards.c.not_before
    return or_(kept_until <= now_db(), kept_until > now_db() + LONGEST_DELAY)


def is_recent(moment: ColumnElement[float], seconds: float) -> ColumnElement[bool]:
    """Return the condition that something happened in the last `seconds`."""
    return and_(moment >= now_db() - seconds, moment <= now_db() + SLACK + seconds)


def now_after_parts() -> ColumnElement[float]:
    """Return the time at which a job leaves running: now, but not before its newest part."""
    latest = (
        select(func.max(parts.c.committed_at))
        .where(parts.c.job_id == jobs.c.id)
        .correlate(jobs)
        .scalar_subquery()
    )
    return case((latest > now_db(), latest), else_=now_db())
