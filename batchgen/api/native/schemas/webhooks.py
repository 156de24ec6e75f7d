"""Webhooks, and the events that were sent to them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from batchgen.api.native.schemas.shape import Shape


class NewWebhook(BaseModel):
    """A webhook to be added."""

    model_config = ConfigDict(extra="forbid")

    # https, to a host that the operator allows
    url: str
    # names such as batch.completed; none is all events
    events: list[str] = Field(default=[], max_length=64)


class Delivery(Shape):
    """An event for one webhook, and what came of it."""

    id: str
    type: str
    # the id of the job or the batch that ended, as the event has it
    subject: str
    state: Literal["pending", "delivered", "given up"]
    attempts: int
    # of the last attempt
    error: str | None
    created_at: datetime
    next_attempt_at: datetime | None
    delivered_at: datetime | None


class DeliveryList(Shape):
    """Deliveries, newest first."""

    data: list[Delivery]


class Webhook(Shape):
    """A URL that receives events."""

    id: str
    url: str
    # none is all events
    events: list[str]
    created_at: datetime
    # when its receiver answered that it is gone
    disabled_at: datetime | None
    last_delivery: Delivery | None


class WebhookWithSecret(Webhook):
    """A webhook that was just added. No other answer has its secret."""

    secret: str


class WebhookList(Shape):
    """Webhooks, oldest first."""

    data: list[Webhook]
