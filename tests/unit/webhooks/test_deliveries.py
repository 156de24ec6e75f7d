from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from batchgen.database.database import Database
from batchgen.errors import NotAllowed
from batchgen.webhooks.deliveries import (
    CLAIM,
    DELAYS,
    GONE,
    JITTER,
    MOST_ATTEMPTS,
    UNRECORDED,
    Claim,
    DeliveryManager,
)
from batchgen.webhooks.webhooks import Webhook, WebhookManager
from tests.unit.webhooks.conftest import TENANT, Wait

DAY = 86_400  # seconds


def claim_one(sent: DeliveryManager) -> Claim:
    """The one delivery that is due."""
    (claim,) = sent.claim(limit=9, each=9)
    return claim


def test_a_claim_says_all_that_is_needed_to_send(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager
) -> None:
    delivery = webhooks.test(TENANT, webhook.id)
    claim = claim_one(sent)
    assert (claim.id, claim.attempt) == (delivery, 1)
    assert (claim.url, claim.secret) == (webhook.url, webhook.secret)
    assert delivery in claim.payload
    assert claim.secret not in repr(claim)


def test_a_delivery_that_was_claimed_is_not_due(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager
) -> None:
    webhooks.test(TENANT, webhook.id)
    claim_one(sent)
    assert sent.claim(limit=9, each=9) == []


def test_a_claim_that_runs_out_is_another_attempt_with_the_same_id(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager, wait_long: Wait
) -> None:
    webhooks.test(TENANT, webhook.id)
    first = claim_one(sent)
    wait_long()
    second = claim_one(sent)
    assert (second.id, second.payload, second.attempt) == (first.id, first.payload, 2)
    # the first sender lives after all: what it says comes too late
    sent.record_failure(first, "no answer")
    delivery = sent.get(first.id)
    assert delivery is not None
    assert (delivery.attempts, delivery.error) == (2, None)
    sent.record_success(second)
    sent.record_failure(second, "no answer")
    delivery = sent.get(first.id)
    assert delivery is not None
    assert delivery.delivered_at is not None
    assert (delivery.next_at, delivery.error) == (None, None)


def test_a_delivery_is_tried_for_about_a_day_and_then_given_up(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager, wait_long: Wait
) -> None:
    delivery_id = webhooks.test(TENANT, webhook.id)
    delays = []
    for attempt in range(1, len(DELAYS) + 2):
        claim = claim_one(sent)
        assert claim.attempt == attempt
        with sent.database.begin_reading() as connection:
            now = sent.database.now(connection)
        again = sent.record_failure(claim, f"failure {attempt}")
        delivery = sent.get(delivery_id)
        assert delivery is not None
        assert delivery.error == f"failure {attempt}"
        assert again == (delivery.next_at is not None)
        if delivery.next_at is not None:
            delays.append(delivery.next_at - now)
        wait_long()
        assert delivery.delivered_at is None
    assert sent.claim(limit=9, each=9) == []
    for planned, found in zip(DELAYS, delays, strict=True):
        assert found >= planned * (1 - JITTER)
    assert 0.8 * DAY < sum(DELAYS) < 1.2 * DAY


def test_a_receiver_that_is_gone_gets_nothing_more(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager, wait_long: Wait
) -> None:
    other = webhooks.add(TENANT, url="https://hooks.example.org/other")
    first, second = (webhooks.test(TENANT, webhook.id) for _ in range(2))
    kept = webhooks.test(TENANT, other.id)
    gone = next(claim for claim in sent.claim(limit=9, each=9) if claim.id == first)
    sent.record_gone(gone)
    for each in (first, second):
        delivery = sent.get(each)
        assert delivery is not None
        assert (delivery.next_at, delivery.delivered_at, delivery.error) == (None, None, GONE)
    assert webhooks.get(TENANT, webhook.id).disabled_at is not None
    wait_long()
    assert [claim.id for claim in sent.claim(limit=9, each=9)] == [kept]
    with pytest.raises(NotAllowed, match="disabled"):
        webhooks.test(TENANT, webhook.id)


def test_a_delivery_that_no_sender_survives_is_given_up(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager, wait_long: Wait
) -> None:
    delivery_id = webhooks.test(TENANT, webhook.id)
    for _ in range(MOST_ATTEMPTS):
        claim_one(sent)
        wait_long()
    assert sent.claim(limit=9, each=9) == []
    delivery = sent.get(delivery_id)
    assert delivery is not None
    assert (delivery.state, delivery.error) == ("given up", UNRECORDED)


def test_a_slow_receiver_leaves_room_for_others(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager
) -> None:
    slow = [webhooks.test(TENANT, webhook.id) for _ in range(5)]
    other = webhooks.add("other", url=webhook.url)
    late = webhooks.test("other", other.id)
    claims = [claim.id for claim in sent.claim(limit=3, each=2)]
    assert claims == [*slow[:2], late]


def test_each_attempt_is_claimed_by_one_of_two_coordinators(postgres_url: str) -> None:
    database = Database(postgres_url)
    webhooks = WebhookManager(database)
    webhook = webhooks.add(TENANT, url="https://hooks.example.org/")
    made = {webhooks.test(TENANT, webhook.id) for _ in range(60)}
    managers = [DeliveryManager(database), DeliveryManager(database)]
    claimed: list[str] = []

    def drain(manager: DeliveryManager) -> None:
        while claims := manager.claim(limit=5, each=5):
            claimed.extend(claim.id for claim in claims)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(drain, managers))
    # a coordinator that lost every race of a round finds nothing and ends; the other goes on
    drain(managers[0])
    assert sorted(claimed) == sorted(made)
    database.close()


def test_ended_deliveries_are_swept_when_they_are_old(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager
) -> None:
    done, waiting = (webhooks.test(TENANT, webhook.id) for _ in range(2))
    claims = {claim.id: claim for claim in sent.claim(limit=9, each=9)}
    sent.record_success(claims[done])
    assert sent.sweep() == 0
    assert sent.sweep(older_than=-CLAIM) == 1
    assert sent.get(done) is None
    assert sent.get(waiting) is not None
