"""The cluster every fault is injected into, and the table of what the faults cost.

@pytest.mark.fault(4, "SIGSTOP beyond the lease")      number and name in the matrix
@pytest.mark.long                                       `make faults` only, as all but IN_CI are
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from batchgen_migrations import upgrade
from tests.support.cluster import Cluster, Toll, running_cluster
from tests.support.fault_table import LINE
from tests.support.servers import PostgresProcess, server_folder

# What `make ci` has five minutes for; `make faults` has all.
IN_CI = {
    *(1, 3, 4, 6, 11, 13, 14, 21, 22, 29, 39, 40, 41, 42, 47, 49, 54, 55, 56, 57, 59, 62, 64, 70),
    *(72, 74, 78, 79),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the other faults to `make faults`."""
    for item in items:
        marker = item.get_closest_marker("fault")
        if marker is not None and marker.args[0] not in IN_CI:
            item.add_marker("long")


@pytest.fixture(params=["postgresql", "sqlite"])
def fault_database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind; processes that a test leaves behind meet no other test."""
    names = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
    url: str = request.getfixturevalue(names[request.param])
    return url


@pytest.fixture
def cluster(
    fault_database_url: str, broker_url: str, tmp_path: Path, toll: Toll
) -> Iterator[Cluster]:
    """An installation on PostgreSQL and one on SQLite, without a process yet."""
    with running_cluster(
        tmp_path, database_url=fault_database_url, broker_url=broker_url
    ) as cluster:
        cluster.toll = toll
        yield cluster


@pytest.fixture
def toll(pytestconfig: pytest.Config) -> Toll:
    """The cost of this test's faults; tests without a cluster fill it themselves."""
    return Toll(timed=pytestconfig.getoption("--timed"))


@pytest.fixture(autouse=True)
def reported(request: pytest.FixtureRequest, toll: Toll) -> Iterator[None]:
    """Report one line of the table for each test that has a number."""
    yield
    marker = request.node.get_closest_marker("fault")
    if marker is not None:
        number, name = marker.args
        line = {"number": number, "name": name, **asdict(toll)}
        request.node.user_properties.append((LINE, orjson.dumps(line).decode()))


@pytest.fixture
def needs(request: pytest.FixtureRequest) -> Any:
    """Call it with the programs a fault is injected by: where one is missing, it is not tested."""

    def check(*programs: str) -> None:
        missing = [program for program in programs if shutil.which(program) is None]
        if missing:
            pytest.xfail(f"not tested here: {', '.join(missing)} not installed")

    return check


@pytest.fixture
def own_postgres() -> Iterator[PostgresProcess]:
    """A PostgreSQL server of the test's own, with few connections and the newest schema."""
    with server_folder("bgpg-") as folder:
        server = PostgresProcess(folder, max_connections="40")
        server.start()
        upgrade(server.url)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def own_cluster(
    own_postgres: PostgresProcess, broker_url: str, tmp_path: Path, toll: Toll
) -> Iterator[Cluster]:
    """An installation on a PostgreSQL that the test may stop."""
    with running_cluster(tmp_path, database_url=own_postgres.url, broker_url=broker_url) as cluster:
        cluster.toll = toll
        yield cluster
