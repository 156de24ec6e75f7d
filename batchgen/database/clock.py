"""Moments in SQL, and a clock that may be set back: what lies further ahead than it can is stale.

now ──── lease_expires_at ─ now + lease_seconds ──│── stale: the lease ends a lease from now
now ──── heartbeat_at, enqueued_at ───────────────│── stale: of nobody, as if it had never been

A step back costs a lease at most: a holder that lives renews it, one that is dead loses it in time.
What a user chose (`not_before` of a job, deadlines, windows) may lie as far ahead as it likes.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, case, func, or_, select

from batchgen.database.database import now_db
from batchgen.database.tables import jobs, parts, shards

SLACK = 1.0  # seconds that two looks at the clock may disagree by
LONGEST_DELAY = 600.0  # seconds a shard is ever kept back
UNKNOWN_LEASE = 60.0  # seconds of a lease that does not say how long it lasts


def is_overlong(
    expires_at: ColumnElement[float], seconds: ColumnElement[float]
) -> ColumnElement[bool]:
    """Return the condition that a lease ends later than one can that was renewed just now."""
    return expires_at > ends_again(seconds) + SLACK


def is_live(expires_at: ColumnElement[float], seconds: ColumnElement[float]) -> ColumnElement[bool]:
    """Return the condition that a lease has not run out, nor is one of a clock set back."""
    return and_(expires_at >= now_db(), expires_at <= ends_again(seconds) + SLACK)


def ends_again(seconds: ColumnElement[float]) -> ColumnElement[float]:
    """Return when a lease ends that is renewed now."""
    return now_db() + func.coalesce(seconds, UNKNOWN_LEASE)


def is_due() -> ColumnElement[bool]:
    """Return the condition that a shard is kept back no longer."""
    kept_until = shards.c.not_before
    return or_(kept_until <= now_db(), kept_until > now_db() + LONGEST_DELAY)


def is_recent(moment: ColumnElement[float], seconds: float) -> ColumnElement[bool]:
    """Return the condition that something happened in the last `seconds`."""
    return and_(moment >= now_db() - seconds, moment <= now_db() + SLACK + seconds)


def now_after_parts() -> ColumnElement[float]:
    """Return when a job leaves running: no part of it is newer, whatever the clock says."""
    latest = (
        select(func.max(parts.c.committed_at))
        .where(parts.c.job_id == jobs.c.id)
        .correlate(jobs)
        .scalar_subquery()
    )
    return case((latest > now_db(), latest), else_=now_db())
