from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from batchgen.api.app import create_app
from batchgen.service import Service
from batchgen.settings import MetricsSettings, Settings
from tests.support.api import Api


def test_metrics_need_a_key_that_may_read(api: Api) -> None:
    assert api.anonymous.get("/metrics").status_code == 401
    assert api.ours_with("submit").get("/metrics").status_code == 403
    answer = api.ours_with("read").get("/metrics")
    assert answer.status_code == 200
    assert "batchgen_http_requests_in_progress 1.0" in answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")


def test_prometheus_gets_the_form_that_it_asks_for(api: Api) -> None:
    accept = {"accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1"}
    answer = api.ours.get("/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@pytest.fixture
def open_client(tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(home=tmp_path, metrics=MetricsSettings(public=True))
    with TestClient(create_app(Service(settings))) as client:
        yield client


def test_an_operator_may_leave_them_open_and_nothing_else(open_client: TestClient) -> None:
    assert open_client.get("/metrics").status_code == 200
    assert open_client.get("/readyz").status_code == 401
