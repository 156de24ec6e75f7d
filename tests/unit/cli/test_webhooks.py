from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from batchgen.service import Service
from batchgen.settings import Settings
from batchgen.webhooks.sender import Sender
from tests.support.receivers import Receiver, receiving
from tests.unit.cli.conftest import Command

HOST = "hooks.example.org"
URL = f"https://{HOST}/in"


@pytest.fixture
def batchgen(batchgen: Command) -> Command:
    """The command of an operator who has named hosts."""
    batchgen.env = {
        "BATCHGEN_WEBHOOK_HOSTS": f"{HOST},127.0.0.1",
        "BATCHGEN_WEBHOOK_NETWORKS": "127.0.0.0/8",
    }
    return batchgen


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def coordinated(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sender run each time that the command looks whether the event was sent."""
    settings = Settings(
        home=service.settings.home, webhook_hosts="127.0.0.1", webhook_networks="127.0.0.0/8"
    )

    def send(_: float) -> None:
        Sender(service.store.database, settings, report=lambda *_: None).send_due()

    monkeypatch.setattr("batchgen_cli.commands.webhooks.time.sleep", send)


def test_without_hosts_the_command_says_what_to_set(batchgen: Command) -> None:
    batchgen.env = {}
    result = batchgen("webhooks", "add", URL)
    assert result.exit_code == 2
    assert "BATCHGEN_WEBHOOK_HOSTS" in result.stderr
    assert HOST in result.stderr


def test_the_secret_is_shown_once(batchgen: Command) -> None:
    made = batchgen.json("webhooks", "add", URL, "--event", "job.failed")
    assert made["secret"].startswith("whsec_")
    assert (made["url"], made["events"]) == (URL, ["job.failed"])
    listed = batchgen.ok("webhooks", "ls", "--json").stdout
    assert json.loads(listed)[0]["id"] == made["id"]
    assert made["secret"] not in listed
    assert made["secret"] not in batchgen.ok("webhooks", "ls").stdout
    identity, secret = batchgen.ok("webhooks", "add", URL).stdout.split()
    assert batchgen.ok("webhooks", "ls", "-q").stdout.split() == [made["id"], identity]
    assert secret.startswith("whsec_")


def test_an_unknown_event_is_refused(batchgen: Command) -> None:
    result = batchgen("webhooks", "add", URL, "--event", "job.faild")
    assert result.exit_code == 2
    assert "job.failed" in result.stderr


def test_rm(batchgen: Command) -> None:
    made = batchgen.json("webhooks", "add", URL)
    batchgen.ok("webhooks", "rm", made["id"])
    assert batchgen.json("webhooks", "ls") == []
    result = batchgen("webhooks", "rm", made["id"])
    assert result.exit_code == 4
    assert "batchgen webhooks ls" in result.stderr


def added(batchgen: Command, receiver: Receiver) -> Any:
    """A webhook of the receiver."""
    made = batchgen.json("webhooks", "add", receiver.url)
    receiver.secret = made["secret"]
    return made


@pytest.mark.usefixtures("coordinated")
def test_a_test_says_that_the_receiver_has_it(batchgen: Command, receiver: Receiver) -> None:
    made = added(batchgen, receiver)
    assert batchgen.ok("webhooks", "test", made["id"]).stdout == "delivered\n"
    (event,) = receiver.events()
    assert event["type"] == "webhook.test"
    (listed,) = batchgen.json("webhooks", "ls")
    assert listed["last_delivery"]["id"] == event["id"]
    assert listed["last_delivery"]["state"] == "delivered"


@pytest.mark.usefixtures("coordinated")
def test_a_test_says_why_the_receiver_has_it_not(batchgen: Command, receiver: Receiver) -> None:
    made = added(batchgen, receiver)
    receiver.answers.append(500)
    result = batchgen("webhooks", "test", made["id"])
    assert result.exit_code == 1
    assert "answered 500" in result.stderr
    assert "answered 500" in batchgen.ok("webhooks", "ls").stdout


def test_a_test_without_a_coordinator_ends(batchgen: Command, receiver: Receiver) -> None:
    made = added(batchgen, receiver)
    result = batchgen("webhooks", "test", made["id"], "--timeout", "0")
    assert result.exit_code == 1
    assert "No coordinator" in result.stderr
