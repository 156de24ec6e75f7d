from __future__ import annotations

import pytest

from batchgen.errors import DatabaseUnavailable
from batchgen.jobs.store import Store
from batchgen_workers.service import queue_figures
from batchgen_workers.service.queue_figures import QueueFigures
from tests.support.jobs import MODEL, new_job, running_job
from tests.support.metrics import samples
from tests.unit.workers.service.test_coordinator import sign_on


@pytest.fixture
def figures(store: Store) -> QueueFigures:
    return QueueFigures(store, alive_within=30.0)


def test_the_figures_are_those_of_sql(store: Store, figures: QueueFigures) -> None:
    job = running_job(store, 64)
    sign_on(store, slots=3)
    found = samples(figures)
    assert found["batchgen_database_up"] == 1
    assert found['batchgen_jobs{state="running"}'] == 1
    depth = found[f'batchgen_queue_depth{{queue="{MODEL}"}}']
    assert depth == len(store.jobs.shards(job.id))
    assert found[f'batchgen_queue_oldest_age_seconds{{queue="{MODEL}"}}'] >= 0
    assert found[f'batchgen_window_open{{queue="{MODEL}"}}'] == 1
    assert found[f'batchgen_workers{{queue="{MODEL}"}}'] == 1
    assert found[f'batchgen_worker_slots{{queue="{MODEL}"}}'] == 3
    assert found[f'batchgen_worker_heartbeat_age_seconds{{queue="{MODEL}"}}'] >= 0


def test_many_who_ask_cost_the_database_one_answer(
    store: Store, figures: QueueFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_figures, "KEPT_FOR", 1e9)
    before = samples(figures)
    store.jobs.submit(new_job(32))
    assert samples(figures) == before
    monkeypatch.setattr(queue_figures, "KEPT_FOR", -1.0)
    assert samples(figures) != before


def test_a_database_that_is_away_is_shown_as_down(
    store: Store, figures: QueueFigures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(store.statistics, "read", fail)
    assert samples(figures) == {"batchgen_database_up": 0}
