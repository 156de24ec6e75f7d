from __future__ import annotations

import json
import threading

import pytest
from sqlalchemy import select

from batchgen.database.database import Database
from batchgen.database.webhook_tables import webhooks as table
from batchgen.errors import InvalidParameter, NotAllowed, WebhookNotFound
from batchgen.jobs.store import Store
from batchgen.webhooks.deliveries import DeliveryManager
from batchgen.webhooks.events import Event, check_events
from batchgen.webhooks.webhooks import MOST, Webhook, WebhookManager
from tests.support.jobs import new_job
from tests.unit.webhooks.conftest import TENANT

URL = "https://hooks.example.org/in"


def test_a_webhook_is_kept_as_it_was_made(webhooks: WebhookManager) -> None:
    made = webhooks.add(TENANT, url=URL, events=[Event.BATCH_COMPLETED, Event.JOB_FAILED])
    assert made.url == URL
    assert made.events == (Event.BATCH_COMPLETED, Event.JOB_FAILED)
    assert webhooks.get(TENANT, made.id) == made
    assert webhooks.list(TENANT) == [made]
    other = webhooks.add(TENANT, url=URL)
    assert other.secret != made.secret
    assert made.secret not in repr(made)


def test_another_tenants_webhook_is_not_found(webhooks: WebhookManager, webhook: Webhook) -> None:
    assert webhooks.list("other") == []
    for action in (webhooks.get, webhooks.remove, webhooks.test):
        with pytest.raises(WebhookNotFound):
            action("other", webhook.id)
    assert webhooks.list(TENANT) == [webhook]


def test_a_removed_webhook_leaves_nothing_to_send(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager
) -> None:
    delivery = webhooks.test(TENANT, webhook.id)
    webhooks.remove(TENANT, webhook.id)
    assert sent.get(delivery) is None
    assert webhooks.list(TENANT) == []
    with pytest.raises(WebhookNotFound):
        webhooks.remove(TENANT, webhook.id)


def test_a_test_is_an_event_for_one_webhook(
    webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager
) -> None:
    webhooks.add(TENANT, url=URL)
    delivery = sent.get(webhooks.test(TENANT, webhook.id))
    assert delivery is not None
    payload = json.loads(delivery.payload)
    assert (payload["type"], payload["data"]) == ("webhook.test", {"id": webhook.id})
    assert len(sent.claim(limit=9, each=9)) == 1


def test_a_tenant_has_so_many_webhooks_at_most(webhooks: WebhookManager) -> None:
    for _ in range(MOST):
        webhooks.add(TENANT, url=URL)
    with pytest.raises(NotAllowed, match="already"):
        webhooks.add(TENANT, url=URL)
    webhooks.add("other", url=URL)


def test_events_are_checked() -> None:
    assert check_events(["job.failed", "job.failed"]) == (Event.JOB_FAILED,)
    with pytest.raises(InvalidParameter, match=r"Did you mean 'job\.failed'"):
        check_events(["job.faild"])
    with pytest.raises(InvalidParameter):
        check_events(["webhook.test"])


def test_a_job_that_ends_beside_a_removal_still_ends(postgres_url: str) -> None:
    """The removal holds its lock; the job waits, and its event goes to nobody."""
    database = Database(postgres_url)
    store, webhooks = Store(database), WebhookManager(database)
    webhook = webhooks.add(TENANT, url=URL)
    job = store.jobs.submit(new_job(tenant_id=TENANT))
    ending = threading.Thread(target=store.jobs.fail, args=(job.id, "The model is gone."))
    with database.begin() as connection:
        connection.execute(select(table).with_for_update()).all()
        ending.start()
        connection.execute(table.delete().where(table.c.id == webhook.id))
    ending.join()
    assert store.jobs.by_id(job.id).state == "failed"
    database.close()
