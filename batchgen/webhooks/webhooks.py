"""Webhooks of tenants: made, listed, removed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import Connection, Select, delete, func, insert, select
from uuid_utils import uuid7

from batchgen.database.database import now_db
from batchgen.database.transactions import Manager, reading, repeatable, transaction
from batchgen.database.webhook_tables import deliveries, webhooks
from batchgen.errors import NotAllowed, WebhookNotFound
from batchgen.webhooks import outbox
from batchgen.webhooks.events import Event
from batchgen.webhooks.signatures import new_secret

if TYPE_CHECKING:
    from sqlalchemy import Row

_ID: Final = re.compile("[0-9a-f]{32}")

MOST: Final = 16  # webhooks of one tenant, because each event is sent to all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A URL of a tenant that receives events."""

    id: str
    url: str
    # () is all events
    events: tuple[Event, ...]
    created_at: float
    # None unless the receiver has answered that it is gone
    disabled_at: float | None
    # what its signatures are made with; shown when the webhook is made, and never again
    secret: str = field(repr=False)

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row of the table of webhooks."""
        return cls(
            id=row.id,
            url=row.url,
            events=tuple(map(Event, row.events.split())),
            created_at=row.created_at,
            disabled_at=row.disabled_at,
            secret=row.secret,
        )


WebhookRecords = list[Webhook]


class WebhookManager(Manager):
    """The transactions on webhooks. Another tenant's webhook is not found."""

    @transaction
    def add(
        self, connection: Connection, tenant: str, *, url: str, events: Sequence[Event] = ()
    ) -> Webhook:
        """Make a webhook and its secret; raise NotAllowed if the tenant has too many."""
        number = select(func.count()).select_from(webhooks).where(webhooks.c.tenant_id == tenant)
        if connection.execute(number).scalar_one() >= MOST:
            raise NotAllowed(f"There are {MOST} webhooks already. Remove one that is not needed.")
        added = insert(webhooks).values(
            id=uuid7().hex,
            tenant_id=tenant,
            url=url,
            secret=new_secret(),
            events=" ".join(events),
            created_at=now_db(),
        )
        return Webhook.from_row(connection.execute(added.returning(webhooks)).one())

    @reading
    def list(self, connection: Connection, tenant: str) -> WebhookRecords:
        """Return the webhooks of a tenant, oldest first."""
        own = select(webhooks).where(webhooks.c.tenant_id == tenant).order_by(webhooks.c.id)
        return [Webhook.from_row(row) for row in connection.execute(own)]

    @reading
    def get(self, connection: Connection, tenant: str, webhook_id: str) -> Webhook:
        """Return a webhook; raise WebhookNotFound."""
        return self._found(connection, _own(tenant, webhook_id))

    @repeatable
    def remove(self, connection: Connection, tenant: str, webhook_id: str) -> None:
        """Delete a webhook and what is still to be sent to it; raise WebhookNotFound.

        A job that ends meanwhile waits for the lock, and then does not find the webhook.
        """
        self._found(connection, _own(tenant, webhook_id).with_for_update())
        connection.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))
        connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))

    @transaction
    def test(self, connection: Connection, tenant: str, webhook_id: str) -> str:
        """Insert an event for one webhook and return the id of its delivery.

        Raises WebhookNotFound, and NotAllowed if the webhook is disabled.
        """
        webhook = self._found(connection, _own(tenant, webhook_id))
        if webhook.disabled_at is not None:
            raise NotAllowed(
                f"The webhook {webhook.id} is disabled, because its receiver answered that it is "
                "gone. Remove it, and add it again."
            )
        return outbox.insert_delivery(connection, webhook.id, Event.TEST, webhook.id)

    def _found(self, connection: Connection, query: Select[Any]) -> Webhook:
        row = connection.execute(query).one_or_none()
        if row is None:
            raise WebhookNotFound
        return Webhook.from_row(row)


def _own(tenant: str, webhook_id: str) -> Select[Any]:
    if _ID.fullmatch(webhook_id) is None:  # PostgreSQL cannot compare with every text
        raise WebhookNotFound
    return select(webhooks).where(webhooks.c.tenant_id == tenant, webhooks.c.id == webhook_id)
