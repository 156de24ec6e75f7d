"""Deliveries: claimed for one attempt, then recorded as delivered, failed or given up.

    next_at ─ due ─► claim: attempts + 1, next_at = now + CLAIM ─► sent ─► delivered: next_at NULL
                                                                      └──► failed: next_at = later
A sender that dies leaves the claim, which runs out: then the event is sent again, with the same id.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import Connection, Update, delete, func, select, update

from batchgen.database.database import now_db
from batchgen.database.tables import storable
from batchgen.database.transactions import Manager, reading, repeatable, transaction
from batchgen.database.webhook_tables import deliveries, webhooks

if TYPE_CHECKING:
    from sqlalchemy import Row

CLAIM: Final = 120.0  # seconds; longer than an attempt and its record may take

#: Seconds from each attempt to the next: about a day, then the delivery is given up.
DELAYS: Final = (5, 60, 300, 1_800, 7_200, 18_000, 28_800, 28_800)
JITTER: Final = 0.1  # share of a delay that is random, so that receivers are not hit at once

#: Attempts after which a delivery is given up even if no sender lived to record one.
MOST_ATTEMPTS: Final = 2 * (len(DELAYS) + 1)

KEPT: Final = 7 * 86_400.0  # seconds for which ended deliveries are kept, to be looked at
GONE: Final = "the receiver answered 410: it is gone"
UNRECORDED: Final = "no attempt was recorded: the coordinator died each time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One attempt at a delivery, which only its holder makes."""

    id: str
    webhook_id: str
    url: str
    payload: str
    # 1 for the first
    attempt: int
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The state of the delivery of one event to one webhook."""

    id: str
    payload: str
    created_at: float
    attempts: int
    # None if it is delivered, or given up
    next_at: float | None
    delivered_at: float | None
    # of the last attempt, None if there was none or it succeeded
    error: str | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row of the table of deliveries."""
        return cls(
            id=row.id,
            payload=row.payload,
            created_at=row.created_at,
            attempts=row.attempts,
            next_at=row.next_at,
            delivered_at=row.delivered_at,
            error=row.error,
        )

    @property
    def state(self) -> str:
        """One of `pending`, `delivered` and `given up`."""
        if self.delivered_at is not None:
            return "delivered"
        return "given up" if self.next_at is None else "pending"


Claims = list[Claim]
DeliveryRecords = list[Delivery]


class DeliveryManager(Manager):
    """The transactions of the sender."""

    def claim(self, *, limit: int, each: int) -> Claims:
        """Claim the next attempts of at most `limit` due deliveries, `each` for one webhook.

        An attempt is claimed once, however many coordinators claim at the same time.
        """
        # Nothing is due most of the time, and SQLite has one writer.
        return self._claim(limit=limit, each=each) if self._has_due() else []

    @reading
    def _has_due(self, connection: Connection) -> bool:
        due = select(deliveries.c.id).where(deliveries.c.next_at <= now_db()).limit(1)
        return connection.execute(due).one_or_none() is not None

    @transaction
    def _claim(self, connection: Connection, *, limit: int, each: int) -> Claims:
        self._give_up_disabled(connection)
        self._give_up_unrecorded(connection)
        turn = func.row_number().over(
            partition_by=deliveries.c.webhook_id, order_by=deliveries.c.next_at
        )
        due = select(deliveries.c.id, deliveries.c.next_at, turn.label("turn"))
        ranked = due.where(deliveries.c.next_at <= now_db()).subquery()
        chosen = select(ranked.c.id).where(ranked.c.turn <= each)
        claimed = (
            update(deliveries)
            # Beside another claim, PostgreSQL looks at this condition again.
            .where(
                deliveries.c.next_at <= now_db(),
                deliveries.c.id.in_(chosen.order_by(ranked.c.next_at).limit(limit)),
            )
            .values(attempts=deliveries.c.attempts + 1, next_at=now_db() + CLAIM)
            .returning(deliveries.c.id)
        )
        ids = connection.execute(claimed).scalars().all()
        joined = select(deliveries, webhooks.c.url, webhooks.c.secret).join(webhooks)
        rows = connection.execute(joined.where(deliveries.c.id.in_(ids)).order_by(deliveries.c.id))
        return [_claim(row) for row in rows]

    @repeatable
    def record_success(self, connection: Connection, claim: Claim) -> None:
        """Record that the receiver has the event."""
        self._record(connection, claim, next_at=None, delivered_at=now_db(), error=None)

    @repeatable
    def record_failure(self, connection: Connection, claim: Claim, error: str) -> bool:
        """Record a failed attempt; return False if it was the last one."""
        if claim.attempt > len(DELAYS):
            self._record(connection, claim, next_at=None, error=storable(error))
            return False
        delay = DELAYS[claim.attempt - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        self._record(connection, claim, next_at=now_db() + delay, error=storable(error))
        return True

    @repeatable
    def record_gone(self, connection: Connection, claim: Claim) -> None:
        """Disable a webhook whose receiver is gone, and give up all that is to be sent to it."""
        disabled = update(webhooks).where(webhooks.c.id == claim.webhook_id)
        connection.execute(
            disabled.values(disabled_at=func.coalesce(webhooks.c.disabled_at, now_db()))
        )
        self._give_up_disabled(connection)

    @reading
    def get(self, connection: Connection, delivery_id: str) -> Delivery | None:
        """Return a delivery, None if there is none."""
        found = select(deliveries).where(deliveries.c.id == delivery_id)
        row = connection.execute(found).one_or_none()
        return None if row is None else Delivery.from_row(row)

    @reading
    def newest(
        self, connection: Connection, webhook_id: str, *, limit: int = 20
    ) -> DeliveryRecords:
        """Return the newest deliveries of a webhook, newest first."""
        own = select(deliveries).where(deliveries.c.webhook_id == webhook_id)
        rows = connection.execute(own.order_by(deliveries.c.id.desc()).limit(limit))
        return [Delivery.from_row(row) for row in rows]

    @repeatable
    def sweep(self, connection: Connection, *, older_than: float = KEPT) -> int:
        """Delete deliveries that ended, and were inserted so many seconds ago; return how many."""
        # Ids begin with the time, so that this reads a piece of the primary key only.
        milliseconds = int((self.database.now(connection) - older_than) * 1_000)
        newest = f"{milliseconds:012x}"
        old = delete(deliveries).where(deliveries.c.id < newest, deliveries.c.next_at.is_(None))
        return connection.execute(old).rowcount

    def _give_up_disabled(self, connection: Connection) -> None:
        disabled = select(webhooks.c.id).where(webhooks.c.disabled_at.is_not(None))
        waiting = update(deliveries).where(
            deliveries.c.next_at.is_not(None), deliveries.c.webhook_id.in_(disabled)
        )
        connection.execute(waiting.values(next_at=None, error=GONE))

    def _give_up_unrecorded(self, connection: Connection) -> None:
        spent = update(deliveries).where(
            deliveries.c.next_at <= now_db(), deliveries.c.attempts >= MOST_ATTEMPTS
        )
        unsaid = func.coalesce(deliveries.c.error, UNRECORDED)
        connection.execute(spent.values(next_at=None, error=unsaid))

    def _record(self, connection: Connection, claim: Claim, **values: Any) -> None:
        connection.execute(_held(claim).values(**values))


def _held(claim: Claim) -> Update:
    """Return the update of a delivery whose attempt nobody has claimed anew."""
    return update(deliveries).where(
        deliveries.c.id == claim.id,
        deliveries.c.attempts == claim.attempt,
        deliveries.c.delivered_at.is_(None),
    )


def _claim(row: Row[Any]) -> Claim:
    return Claim(
        id=row.id,
        webhook_id=row.webhook_id,
        url=row.url,
        payload=row.payload,
        attempt=row.attempts,
        secret=row.secret,
    )
