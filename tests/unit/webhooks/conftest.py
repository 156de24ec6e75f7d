"""Webhooks on an empty database of each kind, and the clock of their deliveries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update

from batchgen.database.database import Database, now_db
from batchgen.database.webhook_tables import deliveries
from batchgen.webhooks.deliveries import DeliveryManager
from batchgen.webhooks.webhooks import Webhook, WebhookManager

TENANT = "acme"

Wait = Callable[[], None]


@pytest.fixture
def webhooks(database: Database) -> WebhookManager:
    """The webhooks of an empty database."""
    return WebhookManager(database)


@pytest.fixture
def sent(database: Database) -> DeliveryManager:
    """The deliveries of an empty database."""
    return DeliveryManager(database)


@pytest.fixture
def webhook(webhooks: WebhookManager) -> Webhook:
    """A webhook for all events."""
    return webhooks.add(TENANT, url="https://hooks.example.org/in")


@pytest.fixture
def wait_long(database: Database) -> Wait:
    """Let the time come at which the next attempt of every delivery is due."""

    def wait() -> None:
        with database.begin() as connection:
            due = update(deliveries).where(deliveries.c.next_at.is_not(None))
            connection.execute(due.values(next_at=now_db() - 1))

    return wait
