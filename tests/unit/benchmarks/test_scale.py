"""The benchmarks of scale, on a scale that takes seconds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import queries, scale
from benchmarks.watching import Sample, Watch

MIB = 1 << 20


def test_a_small_job_goes_all_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(["--rows", "300", "--database", "sqlite", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["lost"], figures["doubled"], figures["errors"]) == (0, 0, 0)
    assert {"submit", "coordinator", "worker 0", "engine 0"} <= figures["processes"].keys()
    assert all(process["peak_mib"] > 5 for process in figures["processes"].values())
    assert "rows/s" in scale.describe(figures)


def test_what_is_lost_and_what_is_doubled_is_counted() -> None:
    assert scale.compare([np.array([0, 1]), np.array([2, 3])], 4) == (0, 0)
    assert scale.compare([np.array([0, 1, 1]), np.array([1, 3])], 5) == (2, 2)
    clean = {"lost": 0, "doubled": 0, "errors": 0, "unsound": []}
    assert scale.is_clean(clean)
    assert not scale.is_clean({**clean, "lost": 1})


def test_every_store_call_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    queries.main(["--shards", "100", "--rounds", "2", "--database", "sqlite", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert set(queries.BOUNDED) <= result["calls"].keys()
    assert queries.is_quick({"calls": {name: {"median_ms": 4.9} for name in queries.BOUNDED}})
    assert not queries.is_quick({"calls": {name: {"median_ms": 5.1} for name in queries.BOUNDED}})
    assert "claim" in queries.describe(result)


def test_queries_among_many_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    """Every look of the benchmark finds what it looks for."""
    queries.main(
        ["--jobs", "400", "--unended", "20", "--rounds", "1", "--database", "sqlite", "--json"]
    )
    result = json.loads(capsys.readouterr().out)
    assert {"status by name", "status by id", "ls", "create"} <= result["calls"].keys()
    assert "400 jobs, 20 not ended" in queries.describe(result)
    calls = {name: {"p95_ms": 9.9} for name in result["calls"]}
    assert queries.is_quick({"jobs": 400, "calls": calls})
    assert not queries.is_quick({"jobs": 400, "calls": {**calls, "ls": {"p95_ms": 10.1}}})
    assert all(0 < call["median_ms"] <= call["p95_ms"] for call in result["calls"].values())


def test_growth_is_what_comes_on_top() -> None:
    watch = Watch()
    for rows, mib in ((10, 50), (100, 100), (150, 110), (201, 90), (1000, 121)):
        watch.add("worker", Sample(rows=rows, resident=mib * MIB))
    assert watch.growth("worker", after=100) == pytest.approx(0.1)
    assert watch.growth("worker", after=600) is None
    assert watch.peak("worker") == 121 * MIB
