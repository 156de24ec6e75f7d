"""Webhooks of one tenant, as a user asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from batchgen.calendar.times import rfc3339
from batchgen.database.database import Database
from batchgen.errors import InvalidParameter
from batchgen.settings import Settings
from batchgen.webhooks.deliveries import Delivery, DeliveryManager
from batchgen.webhooks.destinations import Destinations, Refused
from batchgen.webhooks.events import check_events
from batchgen.webhooks.webhooks import Webhook, WebhookManager

WebhookList = list[Webhook]
Deliveries = list[Delivery]


class Webhooks:
    """Operates on the webhooks of one tenant. A webhook that is not its own is WebhookNotFound."""

    def __init__(self, database: Database, settings: Settings, *, tenant: str) -> None:
        self._webhooks = WebhookManager(database)
        self._deliveries = DeliveryManager(database)
        self._settings = settings
        self._tenant = tenant

    def add(self, url: str, *, events: Iterable[str] = ()) -> Webhook:
        """Make a webhook and its secret, which no later answer shows.

        `events` are the names of the events that it receives; () is all. Raises InvalidParameter
        for a URL to which the operator does not let events be sent, or an unknown event;
        NotAllowed if there are too many webhooks.
        """
        chosen = check_events(events)
        try:
            Destinations.of(self._settings).check_url(url)
        except Refused as error:
            raise InvalidParameter(str(error), param="url") from None
        return self._webhooks.add(self._tenant, url=url, events=chosen)

    def list(self) -> WebhookList:
        """Return all webhooks, oldest first."""
        return self._webhooks.list(self._tenant)

    def get(self, webhook_id: str) -> Webhook:
        """Return a webhook."""
        return self._webhooks.get(self._tenant, webhook_id)

    def remove(self, webhook_id: str) -> None:
        """Delete a webhook; what was to be sent to it is not sent any more."""
        self._webhooks.remove(self._tenant, webhook_id)

    def test(self, webhook_id: str) -> Delivery:
        """Let a coordinator send an event `webhook.test`, and return its delivery.

        Raises NotAllowed if the webhook is disabled.
        """
        return self.delivery(self._webhooks.test(self._tenant, webhook_id))

    def delivery(self, delivery_id: str) -> Delivery:
        """Return a delivery by the id that `test` returned, as it is now."""
        found = self._deliveries.get(delivery_id)
        assert found is not None, "a delivery is kept for days"
        return found

    def deliveries(self, webhook_id: str, *, limit: int = 20) -> Deliveries:
        """Return the newest deliveries of a webhook, newest first."""
        return self._deliveries.newest(self.get(webhook_id).id, limit=limit)


def webhook_json(webhook: Webhook, *, last: Delivery | None = None) -> dict[str, Any]:
    """Return a webhook as JSON, without its secret; `last` is its newest delivery."""
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "created_at": rfc3339(webhook.created_at),
        "disabled_at": rfc3339(webhook.disabled_at),
        "last_delivery": None if last is None else delivery_json(last),
    }


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as JSON, with the event that was sent."""
    event: Mapping[str, Any] = orjson.loads(delivery.payload)
    return {
        "id": event["id"],
        "type": event["type"],
        "subject": event["data"]["id"],
        "state": delivery.state,
        "attempts": delivery.attempts,
        "error": delivery.error,
        "created_at": rfc3339(delivery.created_at),
        "next_attempt_at": rfc3339(delivery.next_at),
        "delivered_at": rfc3339(delivery.delivered_at),
    }
