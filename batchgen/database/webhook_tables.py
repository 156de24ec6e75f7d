"""The tables of webhooks: where to send events, and what is still to be sent."""

from __future__ import annotations

from sqlalchemy import Column, Double, ForeignKey, Index, Integer, Table, Text, text

from batchgen.database.tables import metadata

webhooks = Table(
    "webhooks",
    metadata,
    # uuid7 as hex
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    # `whsec_` and base64; signing needs it in clear
    Column("secret", Text, nullable=False),
    # words such as `batch.completed`, with spaces between; "" is all events
    Column("events", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    # when its receiver said that it is gone
    Column("disabled_at", Double),
    Index(None, "tenant_id"),
)

#: Events to be sent. The transaction that changes a job inserts them, so none is lost.
deliveries = Table(
    "deliveries",
    metadata,
    # uuid7 as hex; the same in every attempt, so that a receiver can drop repetitions
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, ForeignKey("webhooks.id"), nullable=False),
    # JSON, sent as it is
    Column("payload", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # While an attempt is made, this is when another coordinator may make the next one.
    # NULL: delivered, or given up
    Column("next_at", Double),
    Column("delivered_at", Double),
    Column("error", Text),
    Index("delivery_newest", "webhook_id", "id"),
    Index(
        "delivery_due",
        "next_at",
        sqlite_where=text("next_at IS NOT NULL"),
        postgresql_where=text("next_at IS NOT NULL"),
    ),
)
