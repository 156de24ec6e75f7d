"""The outbox: events that are to be sent, inserted by the transaction in which they happen.

UPDATE jobs … ended ─┐
INSERT deliveries    ├ one transaction, so no event is lost and none is invented
COMMIT              ─┘
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select
from uuid_utils import uuid7

from batchgen.core.states import JobState
from batchgen.database.batch_tables import batches
from batchgen.database.database import now_db
from batchgen.database.webhook_tables import deliveries, webhooks
from batchgen.webhooks.events import Event, payload_of

WebhookIds = list[str]


def announce_job(connection: Connection, tenant: str, public_id: str, state: JobState) -> None:
    """Insert the event that a job has ended; for the job of a batch, that the batch has ended."""
    if not _has_webhooks(connection, tenant):
        return
    of_batch = select(batches.c.id).where(batches.c.id == public_id)
    if connection.execute(of_batch).one_or_none() is not None:
        announce_batch(connection, tenant, public_id, state)
    else:
        announce(connection, tenant, Event(f"job.{state}"), public_id)


def announce_batch(connection: Connection, tenant: str, batch_id: str, state: JobState) -> None:
    """Insert the event that a batch has ended, also one that never had a job.

    `batch_id` is the id as stored, without `batch_`.
    """
    announce(connection, tenant, Event(f"batch.{state}"), f"batch_{batch_id}")


def announce(connection: Connection, tenant: str, event: Event, subject: str) -> None:
    """Insert an event for each webhook of the tenant that receives it."""
    for webhook in _receivers(connection, tenant, event):
        insert_delivery(connection, webhook, event, subject)


def insert_delivery(connection: Connection, webhook: str, event: Event, subject: str) -> str:
    """Insert an event for one webhook and return the id of the delivery."""
    delivery = uuid7().hex
    now = float(connection.execute(select(now_db())).scalar_one())
    payload = payload_of(event, delivery=delivery, created_at=now, subject=subject)
    connection.execute(
        insert(deliveries).values(
            id=delivery, webhook_id=webhook, payload=payload, created_at=now, next_at=now
        )
    )
    return delivery


def _has_webhooks(connection: Connection, tenant: str) -> bool:
    found = select(webhooks.c.id).where(webhooks.c.tenant_id == tenant).limit(1)
    return connection.execute(found).one_or_none() is not None


def _receivers(connection: Connection, tenant: str, event: Event) -> WebhookIds:
    enabled = select(webhooks.c.id, webhooks.c.events).where(
        webhooks.c.tenant_id == tenant, webhooks.c.disabled_at.is_(None)
    )
    rows = connection.execute(enabled.order_by(webhooks.c.id))
    return [row.id for row in rows if not row.events or event in row.events.split()]
