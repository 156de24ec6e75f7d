"""Webhooks of the tenant, which a key needs the scope `admin` to change."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from batchgen.api.auth import ADMIN, TenantService
from batchgen.api.native.replies import reply
from batchgen.api.native.schemas.webhooks import (
    Delivery,
    DeliveryList,
    NewWebhook,
    Webhook,
    WebhookList,
    WebhookWithSecret,
)
from batchgen.service.service import Service
from batchgen.service.webhooks import delivery_json, webhook_json
from batchgen.webhooks.webhooks import Webhook as WebhookRecord

MOST_DELIVERIES = 200  # of one answer

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post("", status_code=201, response_model=WebhookWithSecret, dependencies=[ADMIN])
def create_webhook(service: TenantService, asked: NewWebhook) -> Response:
    """Send an event to a URL whenever a job or a batch ends.

    400 if the operator does not allow the host. Only this answer has the secret.
    """
    made = service.webhooks.add(asked.url, events=asked.events)
    return reply({**webhook_json(made), "secret": made.secret}, status=201)


@router.get("", response_model=WebhookList)
def list_webhooks(service: TenantService) -> Response:
    """Return all webhooks, oldest first, each with its newest delivery."""
    return reply({"data": [_shown(service, webhook) for webhook in service.webhooks.list()]})


@router.get("/{webhook_id}", response_model=Webhook)
def retrieve_webhook(service: TenantService, webhook_id: str) -> Response:
    """Return a webhook with its newest delivery."""
    return reply(_shown(service, service.webhooks.get(webhook_id)))


@router.delete("/{webhook_id}", status_code=204, dependencies=[ADMIN])
def delete_webhook(service: TenantService, webhook_id: str) -> None:
    """Remove a webhook; what was to be sent to it is not sent any more."""
    service.webhooks.remove(webhook_id)


@router.post("/{webhook_id}/test", status_code=202, response_model=Delivery, dependencies=[ADMIN])
def test_webhook(service: TenantService, webhook_id: str) -> Response:
    """Let a coordinator send the event `webhook.test`. 409 if the webhook is disabled."""
    return reply(delivery_json(service.webhooks.test(webhook_id)), status=202)


@router.get("/{webhook_id}/deliveries", response_model=DeliveryList)
def list_deliveries(
    service: TenantService,
    webhook_id: str,
    limit: Annotated[int, Query(ge=1, le=MOST_DELIVERIES)] = 20,
) -> Response:
    """Return the newest events of a webhook, newest first, and what came of each."""
    found = service.webhooks.deliveries(webhook_id, limit=limit)
    return reply({"data": [delivery_json(delivery) for delivery in found]})


def _shown(service: Service, webhook: WebhookRecord) -> dict[str, Any]:
    newest = service.webhooks.deliveries(webhook.id, limit=1)
    return webhook_json(webhook, last=newest[0] if newest else None)
