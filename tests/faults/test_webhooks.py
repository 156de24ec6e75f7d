"""Fault 70: senders of webhooks that die, receivers and databases that are away."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update

from batchgen.core.states import JobState
from batchgen.database.database import now_db
from batchgen.database.webhook_tables import deliveries
from batchgen.jobs.records.job_records import LOCAL_TENANT, JobRecord
from batchgen.webhooks.deliveries import Delivery, DeliveryManager
from batchgen.webhooks.webhooks import Webhook, WebhookManager
from tests.support.cluster import Cluster, Toll, running_cluster
from tests.support.receivers import Receiver, free_port, receiving
from tests.support.servers import PostgresProcess
from tests.support.workers import wait_until

ALLOWED = {"webhook_hosts": "127.0.0.1", "webhook_networks": "127.0.0.0/8"}
ROUNDS = 4  # attempts while a receiver is away
JOBS = 8


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def hooked(cluster: Cluster, receiver: Receiver) -> Webhook:
    """A webhook for the jobs of the cluster."""
    made = WebhookManager(cluster.store.database).add(LOCAL_TENANT, url=receiver.url)
    receiver.secret = made.secret
    return made


def cancelled_job(cluster: Cluster) -> JobRecord:
    """A job that a coordinator ends alone."""
    return cluster.store.jobs.cancel(cluster.submit(4).id)


def newest(cluster: Cluster, webhook: Webhook) -> Delivery | None:
    found = DeliveryManager(cluster.store.database).newest(webhook.id, limit=1)
    return found[0] if found else None


def is_delivered(cluster: Cluster, webhook: Webhook) -> bool:
    delivery = newest(cluster, webhook)
    return delivery is not None and delivery.state == "delivered"


def has_failed(cluster: Cluster, webhook: Webhook, attempts: int) -> bool:
    delivery = newest(cluster, webhook)
    return delivery is not None and delivery.attempts == attempts and delivery.error is not None


def wait_long(cluster: Cluster) -> None:
    """Let the next attempt of every delivery be due."""
    with cluster.store.database.begin() as connection:
        waiting = update(deliveries).where(deliveries.c.next_at.is_not(None))
        connection.execute(waiting.values(next_at=now_db() - 1, error=None))


@pytest.mark.fault(70, "kill -9 of a coordinator that has sent an event, before it is recorded")
def test_70_an_event_is_sent_again_with_its_id(cluster: Cluster, receiver: Receiver) -> None:
    webhook = hooked(cluster, receiver)
    job = cancelled_job(cluster)
    victim = cluster.coordinator(failpoint="webhook.sent=kill", **ALLOWED)
    assert victim.wait() == -signal.SIGKILL
    cluster.hurt()
    wait_long(cluster)
    cluster.coordinator(**ALLOWED)
    wait_until(lambda: is_delivered(cluster, webhook))
    first, second = receiver.events()
    assert first == second
    assert (first["type"], first["data"]) == ("job.cancelled", {"id": job.public_id})
    assert len(set(receiver.ids())) == 1
    cluster.drain(job, state=JobState.CANCELLED)


@pytest.mark.fault(70, "a receiver of webhooks that is away for long")
def test_70_a_receiver_that_comes_back_has_the_event(cluster: Cluster) -> None:
    port = free_port()
    webhook = hooked(cluster, Receiver(port=port))
    job = cancelled_job(cluster)
    coordinator = cluster.coordinator(**ALLOWED)
    for attempt in range(1, ROUNDS + 1):
        wait_until(partial(has_failed, cluster, webhook, attempt))
        cluster.hurt()
        wait_long(cluster)
    # Nothing else waits for the receiver.
    assert cluster.store.jobs.by_id(job.id).state is JobState.CANCELLED
    wait_until(lambda: has_failed(cluster, webhook, ROUNDS + 1))
    with receiving(port=port) as receiver:
        receiver.secret = webhook.secret
        wait_long(cluster)
        wait_until(lambda: is_delivered(cluster, webhook))
        # The signature is of this attempt, so it is not too old.
        (event,) = receiver.events()
    assert event["data"] == {"id": job.public_id}
    assert coordinator.is_alive
    cluster.drain(job, state=JobState.CANCELLED)


@pytest.mark.fault(70, "PostgreSQL stopped between an event that is sent and its record")
def test_70_the_database_goes_away_while_an_event_is_sent(
    own_cluster: Cluster, own_postgres: PostgresProcess, receiver: Receiver
) -> None:
    webhook = hooked(own_cluster, receiver)
    job = cancelled_job(own_cluster)
    receiver.may_answer.clear()
    coordinator = own_cluster.coordinator(**ALLOWED)
    receiver.arrived.acquire()
    own_postgres.stop_at_once()
    own_cluster.hurt()
    receiver.may_answer.set()
    wait_until(lambda: coordinator.said("periodic action failed"))
    own_postgres.start()
    wait_long(own_cluster)
    wait_until(lambda: is_delivered(own_cluster, webhook))
    assert len(set(receiver.ids())) == 1
    assert coordinator.is_alive
    own_cluster.drain(job, state=JobState.CANCELLED)


@pytest.mark.fault(70, "two coordinators send the same events")
def test_70_each_attempt_is_made_once(
    postgres_url: str, broker_url: str, tmp_path: Path, toll: Toll, receiver: Receiver
) -> None:
    with running_cluster(tmp_path, database_url=postgres_url, broker_url=broker_url) as cluster:
        cluster.toll = toll
        webhook = hooked(cluster, receiver)
        for _ in range(2):
            cluster.coordinator(**ALLOWED)
        jobs = [cancelled_job(cluster) for _ in range(JOBS)]
        wait_until(lambda: is_delivered(cluster, webhook) and len(receiver.requests) >= JOBS)
        for job in jobs:
            cluster.drain(job, state=JobState.CANCELLED)
        told = [event["data"]["id"] for event in receiver.events()]
        assert sorted(told) == sorted(job.public_id for job in jobs)
