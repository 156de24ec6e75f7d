"""Fault 3: any process dies at any moment, again and again. `make soak KILLS=1000 SEED=…`."""

from __future__ import annotations

import os
import time

import pytest

from tests.support.cluster import Cluster
from tests.support.soak import soak

KILLS = int(os.environ.get("BATCHGEN_TEST_KILLS", "20"))
SEED = int(os.environ.get("BATCHGEN_TEST_SEED", "0"))


@pytest.mark.fault(3, "kill -9 of any process at random")
def test_03_any_process_may_die_at_any_time(cluster: Cluster) -> None:
    done = soak(cluster, kills=KILLS, seed=SEED or time.time_ns())
    print(done)  # noqa: T201 (pytest shows it where the test fails, `make soak` always)
    assert done.kills == KILLS
    assert cluster.toll.rows_in == sum(job.n_rows for job in cluster.store.jobs.list(limit=10**6))
