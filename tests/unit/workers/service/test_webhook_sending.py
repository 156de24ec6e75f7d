from __future__ import annotations

import logging

import pytest

from batchgen.database.database import Database
from batchgen.settings import Settings
from batchgen.telemetry.catalogue import Process
from batchgen.webhooks.deliveries import Claim
from batchgen.webhooks.sender import Outcome
from batchgen_workers.service.webhook_sending import note_attempt, webhook_sender
from tests.support.metrics import Changes

CLAIM = Claim(
    id="d" * 32,
    webhook_id="e" * 32,
    url="https://hooks.example.org/?token=hidden",
    payload="{}",
    attempt=2,
    secret="whsec_hidden",
)


def test_nothing_is_sent_unless_hosts_are_named(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    assert webhook_sender(Settings(), database) is None
    assert webhook_sender(Settings(webhook_hosts="hooks.example.org"), database) is not None


@pytest.mark.parametrize("outcome", Outcome)
def test_an_attempt_is_counted_and_logged_without_its_secrets(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    changes = Changes(Process.COORDINATOR)
    with caplog.at_level(logging.INFO):
        note_attempt(CLAIM, outcome, None if outcome is Outcome.DELIVERED else "no answer")
    assert changes() == {f'batchgen_webhook_attempts_total{{outcome="{outcome}"}}': 1}
    (line,) = [str(record.msg) for record in caplog.records]
    assert CLAIM.id in line
    assert outcome in line
    assert "hidden" not in line
