"""`batchgen webhooks`: add, list, test and remove the webhooks of this home's own jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from batchgen.errors import NotDelivered
from batchgen_cli.app import App, pass_local_app
from batchgen_cli.formats import moment
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.output import Column

if TYPE_CHECKING:
    from batchgen.service.webhooks import Webhooks
    from batchgen.webhooks.deliveries import Delivery
    from batchgen.webhooks.webhooks import Webhook

POLL_INTERVAL: Final = 0.2  # seconds

webhook_argument = click.argument("webhook", metavar="WEBHOOK")


@click.group()
def command() -> None:
    """Add, list, test and remove webhooks: URLs that hear when jobs end."""


@command.command(
    cls=Command,
    examples=[
        "batchgen webhooks add https://hooks.example.org/batchgen",
        "batchgen webhooks add https://hooks.example.org/ --event job.failed --event job.expired",
    ],
)
@click.argument("url", metavar="URL")
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="EVENT",
    help="Send only this event, such as job.failed. May be repeated; default: all events.",
)
@output_options
@pass_local_app
def add(app: App, url: str, events: tuple[str, ...]) -> None:
    """Send an event to URL whenever a job ends.

    The secret that is printed proves that an event is genuine; it is not shown again. The hosts
    that may receive events are named by the setting webhook_hosts; see docs/webhooks.md.
    """
    from batchgen.service.webhooks import webhook_json

    made = app.local.webhooks.add(url, events=events)
    app.output.record(
        {**webhook_json(made), "secret": made.secret},
        quiet=made.secret,
        human=lambda: f"{made.id}\n{made.secret}",
    )
    app.output.note("Give the secret to the receiver: it is not shown again")


@command.command(cls=Command)
@output_options
@pass_local_app
def ls(app: App) -> None:
    """List the webhooks, and what came of the newest event of each."""
    from batchgen.service.webhooks import webhook_json

    webhooks = app.local.webhooks
    last = {webhook.id: _last(webhooks, webhook) for webhook in webhooks.list()}
    app.output.table(
        webhooks.list(),
        _columns(last),
        quiet=lambda webhook: webhook.id,
        json=lambda webhook: webhook_json(webhook, last=last[webhook.id]),
        empty="No webhooks. Add one with: batchgen webhooks add URL",
    )


@command.command(cls=Command)
@webhook_argument
@output_options
@pass_local_app
def rm(app: App, webhook: str) -> None:
    """Remove a webhook; what was to be sent to it is not sent any more."""
    app.local.webhooks.remove(webhook)
    app.output.record({"id": webhook, "removed": True}, quiet=webhook, human=lambda: webhook)


@command.command(cls=Command)
@webhook_argument
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait at most this long for the attempt.",
)
@output_options
@pass_local_app
def test(app: App, webhook: str, timeout: float) -> None:
    """Let the coordinator send the event webhook.test, and wait for the outcome.

    Exits 1 if the receiver did not accept it. It is tried again later, as every event is.
    """
    from batchgen.service.webhooks import delivery_json

    delivery = _attempted(app.local.webhooks, webhook, timeout)
    app.output.record(
        delivery_json(delivery), quiet=delivery.state, human=lambda: delivery.error or "delivered"
    )
    if delivery.error is not None:
        raise NotDelivered(f"The event was not delivered: {delivery.error}.")


def _attempted(webhooks: Webhooks, webhook: str, timeout: float) -> Delivery:
    """Return a test event of a webhook after the first attempt; raise NotDelivered without one."""
    delivery = webhooks.test(webhook)
    give_up = time.monotonic() + timeout
    while delivery.error is None and delivery.delivered_at is None:
        if time.monotonic() >= give_up:
            raise NotDelivered(
                f"No coordinator has sent the event within {timeout:g} seconds. One must run, with "
                "the host in its BATCHGEN_WEBHOOK_HOSTS."
            )
        time.sleep(POLL_INTERVAL)
        delivery = webhooks.delivery(delivery.id)
    return delivery


def _last(webhooks: Webhooks, webhook: Webhook) -> Delivery | None:
    newest = webhooks.deliveries(webhook.id, limit=1)
    return newest[0] if newest else None


def _columns(last: dict[str, Delivery | None]) -> tuple[Column, ...]:
    def outcome(webhook: Any) -> str:
        newest = last[webhook.id]
        if newest is None:
            return "-"
        return f"{newest.state}: {newest.error}" if newest.error else newest.state

    return (
        Column(title="WEBHOOK", value=lambda webhook: webhook.id),
        Column(title="URL", value=lambda webhook: webhook.url),
        Column(title="EVENTS", value=lambda webhook: " ".join(webhook.events) or "all"),
        Column(title="STATE", value=lambda webhook: "disabled" if webhook.disabled_at else "on"),
        Column(title="CREATED", value=lambda webhook: moment(webhook.created_at)),
        Column(title="LAST EVENT", value=outcome),
    )
