from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from batchgen.core.engine_stats import EngineStats
from batchgen.database.database import Database
from batchgen.jobs.store import Store
from batchgen.telemetry.catalogue import CATALOGUE, Kind, Metric, Process
from batchgen.telemetry.engine_figures import EngineFigures, EngineReading
from batchgen.telemetry.registries import REGISTRIES, exposition
from batchgen_workers.service.queue_figures import QueueFigures
from tests.support.catalogue_page import row
from tests.support.repository import ROOT

DOCUMENT = ROOT / "docs" / "metrics.md"
# Labels with few values. An id would make a time series for each job, for ever.
BOUNDED = {"process", "version", "model", "queue", "state", "outcome", "kind", "ending", "file"} | {
    *("method", "route", "status")
}


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: Metric) -> None:
    assert metric.name.startswith("batchgen_")
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert set(metric.labels) <= BOUNDED
    assert metric.help


def test_no_name_is_given_twice() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


def test_the_page_has_this_table() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `batchgen_")]
    assert rows == [row(metric) for metric in CATALOGUE]


@pytest.fixture
def figures(sqlite_url: str) -> dict[Process, object]:
    """The counters that a coordinator and a worker change."""
    reading = EngineReading(stats=EngineStats(), running=0, shards=0)
    return {
        Process.COORDINATOR: QueueFigures(Store(Database(sqlite_url)), alive_within=30.0),
        Process.WORKER: EngineFigures(lambda: reading),
    }


@pytest.mark.parametrize("process", Process)
def test_a_process_has_the_metrics_that_are_promised_of_it_and_no_others(
    process: Process, figures: dict[Process, CollectorRegistry]
) -> None:
    families = list(REGISTRIES[process].collect())
    if process in figures:
        families += list(figures[process].collect())
    kinds = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in families
        if not family.name.startswith("process_")
    }
    promised = [metric for metric in CATALOGUE if process in metric.processes]
    assert kinds == {metric.name: metric.kind for metric in promised}


def test_what_is_exposed_is_in_the_form_that_was_asked_for() -> None:
    body, content_type = exposition(Process.WORKER)
    assert content_type.startswith("text/plain")
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert "batchgen_request_latency_seconds" in names
    assert not [name for name in names if name.endswith("_created")]
    body, content_type = exposition(Process.WORKER, accept="application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
