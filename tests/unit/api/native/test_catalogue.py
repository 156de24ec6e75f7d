from __future__ import annotations

from batchgen.api.native.schemas.catalogue import ModelList, UsageList, WorkerList
from batchgen.jobs.records.job_records import JobRecord, WorkerRecord
from batchgen.service import Service
from tests.support.api import Api


def test_models_are_shown_without_paths_of_the_server(api: Api) -> None:
    answer = api.ours.get("/api/v1/models")
    (model,) = ModelList.model_validate(answer.json()).data
    # imported from ./tiny
    assert (model.name, model.source, model.max_length) == ("tiny", "tiny", 256)
    assert str(api.service.settings.home) not in answer.text


def test_workers(api: Api, service: Service) -> None:
    assert api.ours.get("/api/v1/workers").json() == {"data": []}
    worker = WorkerRecord(
        id="host/1", model="tiny", slots=2, device="cpu", pool_blocks=64, version="1", stats={}
    )
    service.store.workers.heartbeat(worker)
    (found,) = WorkerList.model_validate(api.ours.get("/api/v1/workers").json()).data
    assert (found.id, found.slots) == ("host/1", 2)


def test_usage_is_that_of_the_tenant(api: Api, ended: JobRecord) -> None:
    (used,) = UsageList.model_validate(api.ours.get("/api/v1/usage").json()).data
    assert (used.key_id, used.model, used.jobs) == (ended.key_id, "tiny", 1)
    assert (used.rows_ok, used.rows_err) == (77, 3)
    assert used.prompt_tokens == 77 * 3
    assert api.theirs.get("/api/v1/usage").json() == {"data": []}
