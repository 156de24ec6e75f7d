"""Both clients against the HTTP app: the whole life of a job."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import batchgen
from batchgen.api.app import create_app
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import (
    BadLines,
    Corrupt,
    InvalidInput,
    InvalidParameter,
    JobNotFound,
    KeyRefused,
    NotAllowed,
    OutputConflict,
    UnknownModel,
)
from batchgen.inputs.stored_input import parse_rows
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import JobView, Service
from batchgen.settings import Settings
from batchgen.tenants.principal import Scope
from tests.support.blocking import blocking
from tests.support.homes import answer_some, finish, pin_model, prompts
from tests.support.one_server import OneServer
from tests.support.views import a_worker

ROWS = [{"id": f"row-{n}", "prompt": f"Count to {n}", "max_tokens": n + 1} for n in range(4)]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service of a home with the model `tiny`."""
    settings = Settings(home=tmp_path / "home")
    pin_model(settings.home)
    service = Service(settings)
    yield service
    service.close()


@pytest.fixture
def key(service: Service) -> str:
    return service.access.keys.create("local", scopes=frozenset(Scope)).key


@pytest.fixture(params=["blocking", "async"])
def client(
    request: pytest.FixtureRequest, service: Service, key: str, one_server: OneServer
) -> Iterator[Any]:
    """A client of each kind: through a socket, and into the app itself."""
    app = create_app(service)
    if request.param == "blocking":
        one_server.app = app
        with batchgen.Client(one_server.url, api_key=key, retries=0) as client:
            yield client
    else:
        transport = httpx2.ASGITransport(app)
        looped = batchgen.AsyncClient(
            "http://localhost", api_key=key, retries=0, transport=transport
        )
        with blocking(looped) as view:
            yield view


def stored(service: Service, job: JobRecord) -> list[tuple[str, Any, Any]]:
    """Return what a worker will read of each row of a job."""
    rows = parse_rows(service.storage, job.input_sha256, 0, job.n_rows, defaults={}, model="tiny")
    return [(row.custom_id, row.prompt, row.params.max_tokens) for row in rows]  # type: ignore[union-attr]


def sources(folder: Path) -> dict[str, Any]:
    """Return the same prompts in every form."""
    text = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    path = folder / "prompts.jsonl"
    path.write_bytes(text)
    return {
        "path": path,
        "text": str(path),
        "file": io.BytesIO(text),
        "list": ROWS,
        "generator": (row for row in ROWS),
        "pandas": pd.DataFrame(ROWS),
        "polars": pl.DataFrame(ROWS),
        "arrow": pa.Table.from_pylist(ROWS),
    }


@pytest.mark.parametrize(
    "form", ["path", "text", "file", "list", "generator", "pandas", "polars", "arrow"]
)
def test_prompts_of_every_form_are_the_same_job(
    client: Any, service: Service, tmp_path: Path, form: str
) -> None:
    created = client.jobs.create(sources(tmp_path)[form], model="tiny")
    expected = [(row["id"], row["prompt"], row["max_tokens"]) for row in ROWS]
    assert stored(service, service.job(created.id)) == expected
    assert (created.state, created.rows_total) == ("queued", 4)


def test_everything_asked_for_is_stored(client: Any, service: Service) -> None:
    created = client.jobs.create(
        [{"prompt": "x", "n": "a dozen"}],
        model="tiny",
        name="nightly / ä?&#",
        priority=7,
        not_before="2030-01-01T00:00:00Z",
        window="22:00-06:00 Europe/Berlin",
        deadline="2031-01-01T00:00:00Z",
        columns=["n"],
        temperature=0,
        stop=["END"],
    )
    job = service.job("nightly / ä?&#")
    assert job.public_id == created.id
    assert (job.priority, job.window_spec) == (7, "22:00-06:00 Europe/Berlin")
    assert (job.not_before, job.deadline) == (1893456000.0, 1924992000.0)
    assert job.params == {"temperature": 0, "stop": ["END"], "columns": ["n"]}
    assert client.jobs.retrieve("nightly / ä?&#").id == created.id


def test_the_life_of_a_job(client: Any, service: Service, tmp_path: Path) -> None:
    job = client.jobs.create(io.BytesIO(prompts(40)), model="tiny", name="nightly")
    assert client.jobs.pause("nightly").state == "paused"
    assert client.jobs.resume("nightly").state == "queued"
    with pytest.raises(NotAllowed):
        client.jobs.results("nightly")
    answer_some(service, service.job(job.id), failing=[2])
    assert [row["row"] for row in client.jobs.rows(job.id, partial=True)] == list(range(32))
    finish(service, service.job(job.id), failing=[35])
    ended = client.jobs.wait("nightly")
    assert (ended.state, ended.rows_failed, ended.succeeded) == ("completed", 2, False)
    rows = list(client.jobs.rows("nightly"))
    assert [row["row"] for row in rows if row["error"]] == [2, 35]
    client.jobs.delete(job.id)
    client.jobs.delete(job.id)
    with pytest.raises(JobNotFound):
        client.jobs.retrieve(job.id)


def test_a_job_is_cancelled(client: Any, service: Service) -> None:
    job = client.jobs.create(io.BytesIO(prompts(4)), model="tiny")
    assert client.jobs.cancel(job.id).state == "stopping"
    assert service.job(job.id).stop_reason == "cancel"


def test_wait_shows_each_view_and_gives_up(client: Any, service: Service) -> None:
    job = service.job(client.jobs.create(io.BytesIO(prompts(4)), model="tiny").id)
    with pytest.raises(TimeoutError, match="still queued after 0 s"):
        client.jobs.wait(job.public_id, timeout=0)
    seen: list[str] = []

    def progress(view: JobView) -> None:
        seen.append(view.state)
        if len(seen) == 2:
            finish(service, job)

    assert client.jobs.wait(job.public_id, progress=progress, interval=0).succeeded
    assert seen == ["queued", "queued", "completed"]


def test_results_are_a_dataset(client: Any, service: Service, tmp_path: Path) -> None:
    job = client.jobs.create(io.BytesIO(prompts(4)), model="tiny")
    finish(service, service.job(job.id), failing=[1])
    kept = client.jobs.results(job.id, tmp_path / "answers")
    assert verify_dataset(tmp_path / "answers") == []
    assert not list((tmp_path / "answers" / ".batchgen").glob("download*"))
    expected = ["answer 0", "answer 2", "answer 3"]
    assert kept.to_dataset().to_table()["response"].to_pylist() == expected
    assert kept.to_pandas()["response"].tolist() == expected
    assert kept.to_polars()["response"].to_list() == expected
    assert (kept.errors["row"].to_pylist(), kept.report.errors) == ([1], 1)
    assert client.jobs.results(job.id, tmp_path / "answers").path == tmp_path / "answers"


def test_results_without_a_folder_leave_none(client: Any, service: Service) -> None:
    job = client.jobs.create(io.BytesIO(prompts(4)), model="tiny")
    finish(service, service.job(job.id))
    answers = client.jobs.results(job.id)
    path = answers.path
    assert len(answers.to_arrow()) == 4
    del answers
    assert not path.exists()


def test_results_of_another_job_are_not_mixed_in(
    client: Any, service: Service, tmp_path: Path
) -> None:
    for rows in (3, 4):
        finish(service, service.job(client.jobs.create(io.BytesIO(prompts(rows)), model="tiny").id))
    first, second = (view.id for view in client.jobs.list())
    client.jobs.results(first, tmp_path / "answers")
    with pytest.raises(OutputConflict):
        client.jobs.results(second, tmp_path / "answers")


def test_every_page_of_a_list(
    client: Any, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchgen.client.calls.PAGE", 2)
    ids = [
        client.jobs.create(io.BytesIO(prompts(1)), model="tiny", name=f"n{n % 2}").id
        for n in range(5)
    ]
    newest = ids[::-1]
    assert [view.id for view in client.jobs.list()] == newest
    assert [view.id for view in client.jobs.list(limit=3)] == newest[:3]
    assert [view.id for view in client.jobs.list(limit=0)] == []
    assert [view.id for view in client.jobs.list(name="n0")] == newest[::2]
    assert [view.id for view in client.jobs.list(state="running")] == []


def test_a_view_knows_the_workers_of_its_model(client: Any, service: Service) -> None:
    job = client.jobs.create(io.BytesIO(prompts(1)), model="tiny")
    assert job.waiting_for.startswith("waits for a worker")
    service.store.workers.heartbeat(a_worker())
    assert client.jobs.retrieve(job.id).waiting_for is None
    assert [worker.id for worker in client.workers()] == ["host/1"]


def test_models(client: Any) -> None:
    assert [model.name for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").max_length == 256
    with pytest.raises(UnknownModel, match=r"Did you mean tiny\?"):
        client.models.retrieve("tinny")


def test_errors_are_those_of_a_home(client: Any, service: Service) -> None:
    with pytest.raises(BadLines) as bad:
        client.jobs.create(io.BytesIO(b'{"prompt": "x"}\n{oops\n'), model="tiny")
    with pytest.raises(BadLines) as here:
        from batchgen.service.submission import Submission

        service.submit(io.BytesIO(b'{"prompt": "x"}\n{oops\n'), Submission(model="tiny"))
    assert bad.value.message == here.value.message
    assert bad.value.problems == here.value.problems
    with pytest.raises(InvalidInput, match="Row 1"):
        client.jobs.create(iter([{"prompt": "x"}, "y"]), model="tiny")
    with pytest.raises(UnknownModel, match=r"Did you mean tiny\?"):
        client.jobs.create(io.BytesIO(prompts(1)), model="tinny")
    assert service.records() == []


def test_parameters_that_no_address_can_hold_are_refused_before_anything_is_sent(
    client: Any, service: Service
) -> None:
    for names, fits in ((600, True), (2_000, False)):
        prompts_of_one = iter([{"prompt": "x"}])
        columns = [f"column-{number}" for number in range(names)]
        if fits:
            client.jobs.create(prompts_of_one, model="tiny", columns=columns)
        else:
            with pytest.raises(InvalidParameter, match="into the lines"):
                client.jobs.create(prompts_of_one, model="tiny", columns=columns)
            assert list(prompts_of_one) == [{"prompt": "x"}]
    assert len(service.records()) == 1


def test_one_key_is_one_job(client: Any, service: Service) -> None:
    first = client.jobs.create(io.BytesIO(prompts(3)), model="tiny", idempotency_key="k")
    again = client.jobs.create(io.BytesIO(prompts(3)), model="tiny", idempotency_key="k")
    assert again.id == first.id
    with pytest.raises(NotAllowed, match="Choose another key"):
        client.jobs.create(io.BytesIO(prompts(4)), model="tiny", idempotency_key="k")


def test_a_key_of_nobody_and_a_key_without_the_scope(service: Service) -> None:
    reader = service.access.keys.create("local", scopes=frozenset({Scope.READ})).key
    transport = httpx2.ASGITransport(create_app(service))
    for key in ("", "bg_0123456789abcdef_x", reader):
        client = batchgen.AsyncClient("http://localhost", api_key=key, transport=transport)
        with blocking(client) as view, pytest.raises(KeyRefused):
            view.jobs.create(io.BytesIO(prompts(1)), model="tiny")


def test_a_key_that_may_only_submit_does(service: Service) -> None:
    key = service.access.keys.create("local", scopes=frozenset({Scope.SUBMIT})).key
    transport = httpx2.ASGITransport(create_app(service))
    client = batchgen.AsyncClient("http://localhost", api_key=key, transport=transport)
    with blocking(client) as view:
        created = view.jobs.create(io.BytesIO(prompts(2)), model="tiny")
        with pytest.raises(KeyRefused):
            view.jobs.retrieve(created.id)
    assert [job.public_id for job in service.records()] == [created.id]


class Breaking(httpx2.AsyncBaseTransport):
    """A transport that loses the answers whose numbers it is given, after the app has made them."""

    def __init__(self, app: Any, lost: set[int]) -> None:
        self._inner = httpx2.ASGITransport(app)
        self._lost = lost
        self.sent = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await self._inner.handle_async_request(request)
        self.sent += 1
        if self.sent in self._lost:
            raise httpx2.ReadError("connection reset")
        return answer


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(_: float) -> None:
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("batchgen.client.async_connection.anyio.sleep", wait)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("form", ["list", "generator"])
def test_an_answer_that_was_lost_makes_no_second_job(
    service: Service, key: str, tmp_path: Path, form: str
) -> None:
    transport = Breaking(create_app(service), {1, 2})
    client = batchgen.AsyncClient("http://localhost", api_key=key, transport=transport)
    with blocking(client) as view:
        created = view.jobs.create(sources(tmp_path)[form], model="tiny")
    (job,) = service.records()
    assert (job.public_id, job.n_rows) == (created.id, 4)


@pytest.mark.usefixtures("no_waiting")
def test_a_download_that_broke_off_goes_on(service: Service, key: str, tmp_path: Path) -> None:
    out, app = tmp_path / "answers", create_app(service)
    with blocking(
        batchgen.AsyncClient("http://localhost", api_key=key, transport=httpx2.ASGITransport(app))
    ) as view:
        job = view.jobs.create(io.BytesIO(prompts(4)), model="tiny")
    finish(service, service.job(job.id), failing=[1])
    # job, manifest, the files of answers and errors and the card
    for lost, sent in (({4}, 4), (set[int](), 4)):
        transport = Breaking(app, lost)
        client = batchgen.AsyncClient(
            "http://localhost", api_key=key, retries=0, transport=transport
        )
        with blocking(client) as view:
            if lost:
                with pytest.raises(batchgen.errors.ServerUnavailable):
                    view.jobs.results(job.id, out)
                assert not (out / ".batchgen" / "manifest.json").exists()
            else:
                view.jobs.results(job.id, out)
        assert transport.sent == sent
    assert verify_dataset(out) == []


def test_a_file_that_is_not_the_one_asked_for_is_refused(
    service: Service, key: str, tmp_path: Path
) -> None:
    class Changing(httpx2.AsyncBaseTransport):
        inner = httpx2.ASGITransport(create_app(service))

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            answer = await self.inner.handle_async_request(request)
            if request.url.path.endswith(".parquet"):
                return httpx2.Response(200, content=b"other")
            return answer

    client = batchgen.AsyncClient("http://localhost", api_key=key, transport=Changing())
    with blocking(client) as view:
        job = view.jobs.create(io.BytesIO(prompts(4)), model="tiny")
        finish(service, service.job(job.id))
        with pytest.raises(Corrupt, match="differs from the manifest"):
            view.jobs.results(job.id, tmp_path / "answers")
    assert not (tmp_path / "answers" / "data").exists()
