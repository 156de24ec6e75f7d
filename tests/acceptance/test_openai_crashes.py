"""A server that is killed in an upload or a create loses nothing that it accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from batchgen.batches.batch_records import BatchStatus
from batchgen.repair.garbage import Collector
from batchgen.repair.invariants import check_invariants
from batchgen.service import Service
from batchgen.settings import ServerSettings, Settings
from batchgen.storage.storage import LocalStorage
from tests.support.batches import checker, requests
from tests.support.batches import create as create_batch
from tests.support.homes import pin_model
from tests.support.installation import serve, url_of
from tests.support.processes import Processes, processes
from tests.support.workers import wait_until

TENANT = "acme"


@pytest.fixture
def service(postgres_url: str, broker_url: str, tmp_path: Path) -> Iterator[Service]:
    pin_model(tmp_path / "home")
    settings = Settings(
        home=tmp_path / "home",
        database_url=postgres_url,
        broker_url=broker_url,
        lease_ttl=2.0,
        server=ServerSettings(port=0),
    )
    service = Service(settings)
    service.access.tenants.add(TENANT)
    yield service.for_tenant(TENANT)
    service.close()


@pytest.fixture
def started(service: Service, tmp_path: Path) -> Iterator[Processes]:
    with processes(service.settings, tmp_path) as started:
        yield started


def client(service: Service, url: str) -> openai.OpenAI:
    key = service.access.keys.create(TENANT).key
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60.0)


def upload(client: openai.OpenAI) -> str:
    return client.files.create(file=("requests.jsonl", requests()), purpose="batch").id


def create(client: openai.OpenAI, file_id: str, *, again: int = 0) -> str:
    return client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_headers={"x-stainless-retry-count": str(again)},
    ).id


def collect(service: Service) -> list[str]:
    """Remove all garbage, however young it is."""
    storage = LocalStorage(service.settings.home)
    return [each.key for each in Collector(service.store, storage, min_age=-10.0).collect()]


@pytest.mark.parametrize(
    ("failpoint", "kept"),
    [("storage.synced=kill@1", 0), ("upload.stored=kill", 0), ("upload.registered=kill", 1)],
)
def test_an_upload_is_there_as_a_whole_or_not_at_all(
    service: Service, started: Processes, failpoint: str, kept: int
) -> None:
    server = serve(started, failpoint=failpoint)
    with client(service, url_of(server)) as caller, pytest.raises(openai.APIConnectionError):
        upload(caller)
    assert server.wait() < 0
    assert len(service.files.list()) == kept
    assert bool(collect(service)) is not bool(kept)
    with client(service, url_of(serve(started))) as caller:
        file_id = upload(caller)
        assert caller.files.content(file_id).content == requests()
        assert len(caller.files.list().data) == kept + 1
    assert collect(service) == []
    assert check_invariants(service.store, service.storage) == []


@pytest.mark.parametrize("failpoint", ["batch.creating=kill", "batch.created=kill"])
def test_a_create_that_is_repeated_after_a_crash_is_one_batch(
    service: Service, started: Processes, failpoint: str
) -> None:
    server = serve(started, failpoint=failpoint)
    with client(service, url_of(server)) as caller:
        file_id = upload(caller)
        with pytest.raises(openai.APIConnectionError):
            create(caller, file_id)
    assert server.wait() < 0
    with client(service, url_of(serve(started))) as caller:
        batch_id = create(caller, file_id, again=1)
        assert [batch.id for batch in caller.batches.list()] == [batch_id]
    assert checker(service).run_once() == 1
    assert [f"batch_{job.public_id}" for job in service.records()] == [batch_id]
    assert check_invariants(service.store, service.storage) == []


@pytest.mark.parametrize("failpoint", ["batch.checked=kill", "batch.accepted=kill"])
def test_a_coordinator_that_dies_in_a_check_leaves_it_to_another(
    service: Service, started: Processes, failpoint: str
) -> None:
    batch = create_batch(service)
    dead = started.coordinator(failpoint=failpoint)
    assert dead.wait() < 0
    started.coordinator()
    wait_until(lambda: service.batches.get(batch.id).status is BatchStatus.IN_PROGRESS)
    assert [job.public_id for job in service.records()] == [batch.id]
    assert check_invariants(service.store, service.storage) == []
