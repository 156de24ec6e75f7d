from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from batchgen.database.database import Database
from batchgen.settings import Settings
from batchgen.webhooks import sending
from batchgen.webhooks.deliveries import Claim, Delivery, DeliveryManager
from batchgen.webhooks.sender import Outcome, Sender
from batchgen.webhooks.webhooks import Webhook, WebhookManager
from tests.support.receivers import CERTIFICATE, NAME, Receiver, free_port, receiving
from tests.unit.webhooks.conftest import TENANT, Wait

LOOPBACK = "127.0.0.0/8"


class Reports(list[tuple[Outcome, str | None]]):
    """The reports of a sender about its attempts."""

    def __call__(self, claim: Claim, outcome: Outcome, error: str | None) -> None:
        self.append((outcome, error))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def reports() -> Reports:
    return Reports()


def sender_to(
    database: Database, reports: Reports, *, hosts: str = "127.0.0.1", networks: str = LOOPBACK
) -> Sender:
    settings = Settings(webhook_hosts=hosts, webhook_networks=networks)
    return Sender(database, settings, report=reports)


@pytest.fixture
def sender(database: Database, reports: Reports) -> Sender:
    return sender_to(database, reports)


def hooked(webhooks: WebhookManager, receiver: Receiver) -> Webhook:
    """A webhook of the receiver, which knows its secret."""
    webhook = webhooks.add(TENANT, url=receiver.url)
    receiver.secret = webhook.secret
    return webhook


def newest(sent: DeliveryManager, webhook: Webhook) -> Delivery:
    return sent.newest(webhook.id, limit=1)[0]


def test_an_event_arrives_signed(
    webhooks: WebhookManager, receiver: Receiver, sender: Sender, sent: DeliveryManager
) -> None:
    webhook = hooked(webhooks, receiver)
    delivery = webhooks.test(TENANT, webhook.id)
    sender.send_due()
    (event,) = receiver.events()
    assert (event["type"], event["data"]) == ("webhook.test", {"id": webhook.id})
    (request,) = receiver.requests
    assert request.path == "/in?a=b"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert receiver.ids() == [f"evt_{delivery}"] == [event["id"]]
    assert newest(sent, webhook).state == "delivered"


def test_a_receiver_that_fails_gets_the_event_again_with_its_id(
    webhooks: WebhookManager,
    receiver: Receiver,
    sender: Sender,
    sent: DeliveryManager,
    reports: Reports,
    wait_long: Wait,
) -> None:
    webhook = hooked(webhooks, receiver)
    delivery = webhooks.test(TENANT, webhook.id)
    receiver.answers += [500, 302]
    receiver.headers["location"] = receiver.url
    sender.send_due()
    sender.send_due()  # it is not due yet
    assert newest(sent, webhook).error == "the receiver answered 500"
    wait_long()
    sender.send_due()
    assert newest(sent, webhook).error == "the receiver answered 302"
    wait_long()
    sender.send_due()
    assert receiver.ids() == [f"evt_{delivery}"] * 3
    assert newest(sent, webhook).state == "delivered"
    assert [outcome for outcome, _ in reports] == [Outcome.FAILED] * 2 + [Outcome.DELIVERED]


def test_a_receiver_that_is_gone_is_disabled(
    webhooks: WebhookManager, receiver: Receiver, sender: Sender, reports: Reports
) -> None:
    webhook = hooked(webhooks, receiver)
    webhooks.test(TENANT, webhook.id)
    receiver.answers.append(410)
    sender.send_due()
    assert webhooks.get(TENANT, webhook.id).disabled_at is not None
    assert reports == [(Outcome.DISABLED, None)]


def test_a_name_that_cannot_be_resolved_fails(
    webhooks: WebhookManager, database: Database, sent: DeliveryManager
) -> None:
    webhook = webhooks.add(TENANT, url=f"https://{'x' * 64}.test/")
    webhooks.test(TENANT, webhook.id)
    sender_to(database, Reports(), hosts="*.test").send_due()
    delivery = newest(sent, webhook)
    assert delivery.state == "pending"
    assert "label" in (delivery.error or "")


def test_a_receiver_that_is_not_there_fails(
    webhooks: WebhookManager, sender: Sender, sent: DeliveryManager
) -> None:
    webhook = webhooks.add(TENANT, url=f"http://127.0.0.1:{free_port()}/")
    webhooks.test(TENANT, webhook.id)
    sender.send_due()
    delivery = newest(sent, webhook)
    assert delivery.state == "pending"
    assert "ConnectError" in (delivery.error or "")


def test_a_receiver_that_does_not_answer_is_left(
    webhooks: WebhookManager,
    receiver: Receiver,
    sender: Sender,
    sent: DeliveryManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "WHOLE", 0.3)
    webhook = hooked(webhooks, receiver)
    webhooks.test(TENANT, webhook.id)
    receiver.answers.append(0)
    sender.send_due()
    assert newest(sent, webhook).error
    assert newest(sent, webhook).attempts == 1


def test_a_sender_that_stops_leaves_the_event_to_the_next(
    webhooks: WebhookManager,
    receiver: Receiver,
    database: Database,
    sent: DeliveryManager,
    wait_long: Wait,
) -> None:
    webhook = hooked(webhooks, receiver)
    webhooks.test(TENANT, webhook.id)
    receiver.answers.append(0)
    first = sender_to(database, Reports())
    thread = threading.Thread(target=first.send_due)
    thread.start()
    receiver.arrived.acquire()
    first.stop()
    thread.join()
    assert newest(sent, webhook).state == "pending"
    first.send_due()  # it makes no more attempts
    wait_long()
    sender_to(database, Reports()).send_due()
    assert len(set(receiver.ids())) == 1
    assert len(receiver.ids()) == 2
    assert newest(sent, webhook).state == "delivered"


@pytest.mark.parametrize(
    ("hosts", "networks", "why"),
    [("hooks.example.org", LOOPBACK, "not among"), ("127.0.0.1", "", "no public address")],
)
def test_the_sender_checks_what_was_allowed_when_the_webhook_was_made(
    webhooks: WebhookManager,
    receiver: Receiver,
    database: Database,
    sent: DeliveryManager,
    hosts: str,
    networks: str,
    why: str,
) -> None:
    webhook = hooked(webhooks, receiver)
    webhooks.test(TENANT, webhook.id)
    sender_to(database, Reports(), hosts=hosts, networks=networks).send_due()
    assert receiver.requests == []
    assert why in (newest(sent, webhook).error or "")


@pytest.mark.parametrize("name", [NAME, "other.test"])
def test_the_certificate_is_that_of_the_name_and_the_address_is_pinned(
    webhooks: WebhookManager,
    database: Database,
    sent: DeliveryManager,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """A second look-up would lead to another address: none is made."""
    looked_up: list[Any] = []

    def getaddrinfo(host: Any, *_: Any, **__: Any) -> list[Any]:
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "127.9.9.9"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    monkeypatch.setattr(httpx2, "create_ssl_context", lambda **_: trusting)
    sender = sender_to(database, Reports(), hosts="*.test")
    with receiving(tls=True) as receiver:
        webhook = webhooks.add(TENANT, url=f"https://{name}:{receiver.port}/in")
        receiver.secret = webhook.secret
        webhooks.test(TENANT, webhook.id)
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", getaddrinfo)
            sender.send_due()
        delivery = newest(sent, webhook)
        if name == NAME:
            assert delivery.state == "delivered"
            assert receiver.requests[0].headers["host"] == f"{NAME}:{receiver.port}"
        else:
            assert "certificate" in (delivery.error or "")
            assert receiver.requests == []


def test_no_proxy_of_the_environment_is_used(
    webhooks: WebhookManager, receiver: Receiver, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    webhook = hooked(webhooks, receiver)
    webhooks.test(TENANT, webhook.id)
    sender.send_due()
    assert len(receiver.requests) == 1
