from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai.types.webhooks import BatchCompletedWebhookEvent
from sqlalchemy import insert

from batchgen.core.states import JobState, StopReason
from batchgen.database.batch_tables import batches
from batchgen.database.database import now_db
from batchgen.jobs import transitions
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.store import Store
from batchgen.webhooks import outbox
from batchgen.webhooks.deliveries import DeliveryManager
from batchgen.webhooks.events import Event
from batchgen.webhooks.webhooks import Webhook, WebhookManager
from tests.support.jobs import new_job, set_job
from tests.unit.webhooks.conftest import TENANT

BATCH_COLUMNS = (
    *("idem_key", "endpoint", "completion_window", "options", "model"),
    *("input_file_id", "output_file_id", "error_file_id"),
)


def payloads(sent: DeliveryManager, webhook: Webhook) -> list[dict[str, Any]]:
    """The payloads for a webhook, oldest first."""
    found = sent.newest(webhook.id)
    return [json.loads(delivery.payload) for delivery in reversed(found)]


def make_batch(store: Store, job: JobRecord) -> None:
    """Insert the batch whose job this is."""
    with store.database.begin() as connection:
        connection.execute(
            insert(batches).values(
                id=job.public_id,
                tenant_id=TENANT,
                input_sha256=job.input_sha256,
                job_id=job.id,
                created_at=now_db(),
                expires_at=now_db(),
                **dict.fromkeys(BATCH_COLUMNS, "x"),
            )
        )


def end(store: Store, job: JobRecord, state: JobState) -> None:
    """Move a job through the last step of its life."""
    set_job(store, job.id, state=JobState.FINALIZING, manifest_sha256="0" * 64)
    with store.database.begin() as connection:
        transitions.move(connection, transitions.lock_job(connection, job.id), state)


@pytest.mark.parametrize("state", [state for state in JobState if state.ended])
def test_the_end_of_a_job_is_announced_once(
    store: Store, webhook: Webhook, sent: DeliveryManager, state: JobState
) -> None:
    job = store.jobs.submit(new_job(tenant_id=TENANT))
    store.dispatch.start_due()
    assert sent.newest(webhook.id) == []
    end(store, job, state)
    (payload,) = payloads(sent, webhook)
    assert (payload["type"], payload["data"]) == (f"job.{state}", {"id": job.public_id})


@pytest.mark.parametrize("state", [state for state in JobState if state.ended])
def test_the_job_of_a_batch_announces_the_batch_in_openais_form(
    store: Store, webhook: Webhook, sent: DeliveryManager, state: JobState
) -> None:
    job = store.jobs.submit(new_job(tenant_id=TENANT))
    make_batch(store, job)
    end(store, job, state)
    (payload,) = payloads(sent, webhook)
    assert payload["type"] == f"batch.{state}"
    assert payload["data"] == {"id": f"batch_{job.public_id}"}
    if state is JobState.COMPLETED:
        event = BatchCompletedWebhookEvent.model_validate(payload, strict=True)
        assert event.object == "event"
        assert event.id.startswith("evt_")


def test_a_cancelled_job_is_announced_when_it_ends_and_not_before(
    store: Store, webhook: Webhook, sent: DeliveryManager
) -> None:
    job = store.jobs.submit(new_job(tenant_id=TENANT))
    stopped = store.jobs.cancel(job.id)
    assert stopped.stop_reason is StopReason.CANCEL
    assert sent.newest(webhook.id) == []


def test_a_transaction_that_fails_announces_nothing(
    store: Store, webhook: Webhook, sent: DeliveryManager
) -> None:
    job = store.jobs.submit(new_job(tenant_id=TENANT))
    with pytest.raises(RuntimeError), store.database.begin() as connection:
        transitions.fail(connection, transitions.lock_job(connection, job.id), "The model is gone.")
        raise RuntimeError
    assert sent.newest(webhook.id) == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_end_that_is_repeated_is_announced_once(
    store: Store,
    webhook: Webhook,
    sent: DeliveryManager,
    break_commit: Callable[[str], list[str]],
    moment: str,
) -> None:
    job = store.jobs.submit(new_job(tenant_id=TENANT))
    broken = break_commit(moment)
    store.jobs.fail(job.id, "The model is gone.")
    assert broken
    assert [payload["type"] for payload in payloads(sent, webhook)] == ["job.failed"]


def test_each_webhook_receives_its_events_of_its_tenant(
    store: Store, webhooks: WebhookManager, webhook: Webhook, sent: DeliveryManager
) -> None:
    url = "https://hooks.example.org/"
    picky = webhooks.add(TENANT, url=url, events=[Event.BATCH_FAILED, Event.JOB_EXPIRED])
    other = webhooks.add("other", url=url)
    with store.database.begin() as connection:
        for state in (JobState.COMPLETED, JobState.FAILED):
            outbox.announce_batch(connection, TENANT, "0" * 32, state)
    assert [one["type"] for one in payloads(sent, webhook)] == ["batch.completed", "batch.failed"]
    assert [one["type"] for one in payloads(sent, picky)] == ["batch.failed"]
    assert payloads(sent, other) == []
