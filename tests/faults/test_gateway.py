"""Twelve ways in which batch gateways are known to fail, through the HTTP API.

Each is watched by an observer that sees what a caller sees, and judges it: legal states, counts and
moments that never go back, an end that stays, a cancel that is honoured.
"""

from __future__ import annotations

import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from batchgen.core.states import JobState
from batchgen.jobs.records.job_records import JobRecord
from tests.support.cluster import Cluster
from tests.support.gateway import Gateway, create
from tests.support.strange import publishing_too_often
from tests.support.workers import wait_until

ENDS = ("completed", "cancelled", "failed", "expired")


@pytest.fixture
def gateway(cluster: Cluster) -> Gateway:
    return Gateway(cluster)


def job_of(gateway: Gateway, batch_id: str) -> JobRecord:
    """Return the job of a batch."""
    return gateway.cluster.store.jobs.get(batch_id.removeprefix("batch_"))


def claims(gateway: Gateway, batch_id: str) -> int:
    """Return how often the shard of a batch that was claimed most was claimed."""
    shards = gateway.cluster.store.jobs.shards(job_of(gateway, batch_id).id)
    return max(shard.epoch for shard in shards)


def drain(gateway: Gateway, batch_id: str, state: str = "completed") -> None:
    """Wait for the unattended end of a batch, and count its rows."""
    gateway.await_status(batch_id, *ENDS)
    gateway.cluster.drain(job_of(gateway, batch_id), state=JobState(state))


@pytest.mark.fault(72, "the server dies after a create is stored, before its answer")
def test_72_a_create_that_is_stored_is_the_answer_to_its_repetition(gateway: Gateway) -> None:
    server = gateway.server(failpoint="batch.created=kill")
    file_id = gateway.upload(20)
    with gateway.client() as client, pytest.raises(openai.APIConnectionError):
        create(client, file_id, Idempotency_Key="night-1")
    server.wait()
    gateway.cluster.hurt()
    gateway.server()
    gateway.cluster.coordinator()
    gateway.worker()
    with gateway.observed(), gateway.client() as client:
        batch = create(client, file_id, Idempotency_Key="night-1")
        repeated = create(client, file_id, Idempotency_Key="night-1")
        assert [found.id for found in client.batches.list()] == [batch.id] == [repeated.id]
        drain(gateway, batch.id)
    assert set(gateway.computed().values()) == {1}


@pytest.mark.fault(73, "the server dies when it has confirmed a cancel")
def test_73_a_cancel_that_was_confirmed_is_not_lost(gateway: Gateway) -> None:
    server = gateway.server()
    coordinator = gateway.cluster.coordinator()
    gateway.cluster.brake.after(20)
    worker = gateway.worker()
    batch = gateway.create(200)
    with gateway.observed() as observer:
        gateway.await_status(batch.id, "in_progress")
        gateway.cluster.await_done(job_of(gateway, batch.id), 20)
        coordinator.kill()
        assert gateway.cancel(batch.id).status == "cancelling"
        server.kill()
        worker.kill()
        gateway.cluster.hurt()
        gateway.cluster.brake.release()
        gateway.server()
        gateway.cluster.coordinator()
        gateway.worker()
        drain(gateway, batch.id, "cancelled")
    assert observer.states(batch.id)[-1] == "cancelled"
    assert gateway.rows_completed(batch.id) < 200


@pytest.mark.fault(74, "a frozen worker hands its rows in after a cancel")
def test_74_a_cancel_is_not_reverted(gateway: Gateway) -> None:
    gateway.server()
    gateway.cluster.coordinator()
    gateway.cluster.brake.after(40)
    frozen = gateway.worker()
    batch = gateway.create(200)
    with gateway.observed() as observer:
        gateway.await_status(batch.id, "in_progress")
        gateway.cluster.await_done(job_of(gateway, batch.id), 40)
        gateway.cluster.hold(frozen)
        gateway.cancel(batch.id)
        gateway.cluster.hurt()
        gateway.cluster.brake.release()
        drain(gateway, batch.id, "cancelled")
        frozen.send(signal.SIGCONT)
        other = gateway.create(20)  # the worker is back at work when this one has ended
        drain(gateway, other.id)
    assert observer.states(batch.id)[-1] == "cancelled"


@pytest.mark.fault(75, "a cancel at the moment of the end")
def test_75_a_cancel_and_an_end_at_once_have_one_outcome(gateway: Gateway) -> None:
    gateway.server()
    gateway.cluster.coordinator()
    gateway.worker()

    def race(batch_id: str) -> str:
        wait_until(lambda: gateway.rows_completed(batch_id) > 0)
        try:
            gateway.cancel(batch_id)
        except openai.ConflictError:
            return "completed"
        return "cancelled"

    with gateway.observed():
        batches = [gateway.create(64).id for _ in range(6)]
        with ThreadPoolExecutor(len(batches)) as pool:
            promised = list(pool.map(race, batches))
        for batch_id, outcome in zip(batches, promised, strict=True):
            gateway.cluster.hurt()
            drain(gateway, batch_id, outcome)


@pytest.mark.fault(76, "everything starts again, and a cancel comes, after the end")
def test_76_an_end_is_never_overwritten(gateway: Gateway) -> None:
    gateway.server()
    early = gateway.create(20)
    assert gateway.cancel(early.id).status == "cancelled"
    coordinator = gateway.cluster.coordinator()
    worker = gateway.worker()
    with gateway.observed() as observer:
        batch = gateway.create(20)
        drain(gateway, batch.id)
        for member in (coordinator, worker):
            member.kill()
        gateway.cluster.hurt()
        gateway.cluster.coordinator()
        gateway.worker()
        with pytest.raises(openai.ConflictError):
            gateway.cancel(batch.id)
        drain(gateway, gateway.create(20).id)
    assert observer.states(batch.id)[-1] == "completed"
    assert observer.states(early.id) == ["cancelled"]
    assert gateway.computed().total() == 40, "a batch that was cancelled before its check ran"


@pytest.mark.fault(77, "kill -9 of the worker of a batch")
def test_77_a_killed_worker_strands_no_batch(gateway: Gateway) -> None:
    gateway.server()
    gateway.cluster.coordinator()
    gateway.cluster.brake.after(40)
    worker = gateway.worker()
    with gateway.observed():
        batch = gateway.create(200)
        gateway.await_status(batch.id, "in_progress")
        gateway.cluster.await_done(job_of(gateway, batch.id), 40)
        worker.kill()
        gateway.cluster.hurt()
        gateway.cluster.brake.release()
        gateway.worker()
        drain(gateway, batch.id)
    assert max(gateway.computed().values()) <= claims(gateway, batch.id)


@pytest.mark.fault(78, "every message of a batch three times and more")
def test_78_messages_that_come_again_compute_nothing_again(gateway: Gateway) -> None:
    gateway.server()
    gateway.cluster.start("coordinator", publishing_too_often, ["coordinator"])
    gateway.worker()
    gateway.worker()
    with gateway.observed():
        batches = [gateway.create(100).id for _ in range(3)]
        gateway.cluster.hurt()
        for batch_id in batches:
            drain(gateway, batch_id)
    assert gateway.computed() == Counter(dict.fromkeys(range(300), 1))


@pytest.mark.fault(79, "kill -9 of a finaliser at each of its steps")
@pytest.mark.parametrize(
    "failpoint", ["final.claimed", "storage.synced", "final.completing", "final.completed"]
)
def test_79_there_is_an_output_file_exactly_when_there_is_an_end(
    gateway: Gateway, failpoint: str
) -> None:
    gateway.server()
    finaliser = gateway.cluster.coordinator(failpoint=f"{failpoint}=kill")
    gateway.worker()
    with gateway.observed() as observer:
        batch = gateway.create(40)
        finaliser.wait()
        gateway.cluster.hurt()
        gateway.cluster.coordinator()
        drain(gateway, batch.id)
    for look in observer.seen[batch.id]:
        assert (look["output_file_id"] is not None) == (look["status"] == "completed")
    assert len(gateway.output(gateway.status(batch.id))) == 40


@pytest.mark.fault(80, "the coordinator of a batch is frozen, then killed, while it finalizes")
def test_80_no_batch_stays_in_finalizing(gateway: Gateway) -> None:
    gateway.server()
    frozen = gateway.cluster.coordinator(failpoint="final.claimed=stop:1")
    gateway.worker()
    with gateway.observed():
        batch = gateway.create(40)
        gateway.await_status(batch.id, "finalizing")
        gateway.cluster.await_held(frozen)
        frozen.kill()
        gateway.cluster.hurt()
        gateway.cluster.coordinator()
        drain(gateway, batch.id)


@pytest.mark.fault(81, "coordinators and workers that die again and again as they recover")
def test_81_a_crash_loop_ends_with_its_cause(gateway: Gateway) -> None:
    gateway.server()
    with gateway.observed():
        batch = gateway.create(100)
        for failpoint in ("batch.accepted", "dispatch.taken", "dispatch.published"):
            assert gateway.cluster.coordinator(failpoint=f"{failpoint}=kill").wait() != 0
            if failpoint == "batch.accepted":
                worker = gateway.worker()  # without one nothing is dispatched
            gateway.cluster.hurt()
        worker.kill()
        gateway.cluster.coordinator()
        for _ in range(2):
            assert gateway.worker(failpoint="part.committing=kill").wait() != 0
            gateway.cluster.hurt()
        gateway.worker()
        drain(gateway, batch.id)
    assert max(gateway.computed().values()) <= claims(gateway, batch.id)


@pytest.mark.fault(82, "the frozen owner of a batch comes back")
def test_82_a_frozen_owner_burns_no_inference(gateway: Gateway) -> None:
    gateway.server()
    gateway.cluster.coordinator()
    gateway.cluster.brake.after(40)
    frozen = gateway.worker()
    with gateway.observed():
        batch = gateway.create(200)
        gateway.await_status(batch.id, "in_progress")
        gateway.cluster.await_done(job_of(gateway, batch.id), 40)
        gateway.cluster.hold(frozen)
        gateway.cluster.hurt()
        gateway.cluster.brake.release()
        gateway.worker()
        drain(gateway, batch.id)
        frozen.send(signal.SIGCONT)
        other = gateway.create(20)
        drain(gateway, other.id)
    computed = gateway.computed()
    assert set(computed) == set(range(220))
    assert max(computed.values()) <= claims(gateway, batch.id)


@pytest.mark.fault(83, "replicas of server, coordinator and worker, and a burst of creates")
def test_83_replicas_race_for_a_burst(gateway: Gateway) -> None:
    gateway.server()
    gateway.server(replica=1)
    gateway.cluster.coordinator()
    if not gateway.cluster.store.database.is_sqlite:  # such a home has one coordinator
        gateway.cluster.coordinator()
    gateway.worker()
    gateway.worker()
    files = [gateway.upload(8) for _ in range(12)]

    def ask(attempt: int) -> str:
        with gateway.client(attempt % 2, retries=2) as client:
            file_id = files[attempt // 3]
            return create(client, file_id, Idempotency_Key=file_id).id

    with gateway.observed():
        gateway.cluster.hurt()
        with ThreadPoolExecutor(12) as pool:
            created = list(pool.map(ask, range(3 * len(files))))
        assert set(Counter(created).values()) == {3}
        for batch_id in set(created):
            drain(gateway, batch_id)
    assert gateway.computed() == Counter(dict.fromkeys(range(8 * len(files)), 1))
