"""Processes for which everything goes wrong say and show no row and no password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import make_url, text

from batchgen.database.tables import metadata
from batchgen_workers import testing
from batchgen_workers.testing import answer_to
from tests.support.cluster import Cluster, running_cluster
from tests.support.processes import processes
from tests.support.servers import running_broker, server_folder
from tests.support.workers import wait_until

MARKER = "zebracrossing"  # in every prompt
PASSWORD = "hunter2-of-the-broker"
DATABASE_PASSWORD = "hunter2-of-the-database"

STACK = """
import sys
from batchgen.settings import Settings
from batchgen_workers.service.local_stack import up
for event in up(Settings(), ["tiny"], factory=sys.argv[1]):
    print(event, flush=True)
"""


@pytest.fixture
def cluster(tmp_path: Path, postgres_url: str, broker_url: str) -> Iterator[Cluster]:
    with running_cluster(tmp_path, database_url=postgres_url, broker_url=broker_url) as cluster:
        yield cluster


@pytest.fixture
def guarded_broker() -> Iterator[str]:
    """The URL, with its password, of a broker that asks for it."""
    with server_folder("bgvk-") as folder, running_broker(folder) as url:
        with redis.Redis.from_url(url) as client:
            client.config_set("requirepass", PASSWORD)
        yield url.replace("redis://", f"redis://:{PASSWORD}@")


def rows(*magic: str) -> list[dict[str, Any] | bytes]:
    """Return good rows, rows that cannot be read or asked, and rows that do something."""
    good: list[dict[str, Any] | bytes] = [
        {"id": f"good-{at}", "prompt": f"{MARKER} {at}", "temperature": 0, "extra": MARKER}
        for at in range(100)
    ]
    refused: list[dict[str, Any] | bytes] = [
        {"id": "empty", "prompt": ""},
        {"id": "long", "prompt": f"{MARKER} " * testing.MAX_LENGTH},
        {"id": "type", "prompt": [MARKER]},
        {"id": "field", "messages": [{"role": MARKER, "content": MARKER}]},
        {"id": "value", "prompt": MARKER, "temperature": MARKER},
        {"id": "grammar", "prompt": MARKER, "regex": f"({MARKER}"},
    ]
    unreadable = [
        b'{"id": "cut", "prompt": "' + MARKER.encode(),
        f'["{MARKER}"]'.encode(),
        b'{"prompt": "\xff' + MARKER.encode() + b'"}',
        f'{{"prompt": "{MARKER} \\ud83d"}}'.encode(),
    ]
    harmful: list[dict[str, Any] | bytes] = [
        {"id": f"harmful-{at}", "prompt": f"{MARKER} {word}"} for at, word in enumerate(magic)
    ]
    return [*good, *refused, *unreadable, *harmful]


TROUBLE = {
    "nothing else": ((), ""),
    "disks": ((), "storage.opening=raise:ENOSPC,storage.synced=raise:EIO"),
    "engines that die": ((testing.RAISE, testing.EXIT), ""),
}


@pytest.mark.parametrize(("magic", "failpoint"), TROUBLE.values(), ids=TROUBLE)
def test_no_log_and_no_table_holds_a_row(
    cluster: Cluster, magic: tuple[str, ...], failpoint: str
) -> None:
    cluster.coordinator()
    worker = cluster.worker(failpoint=failpoint)
    job = cluster.submit(rows(*magic))
    wait_until(
        lambda: (
            cluster.store.jobs.by_id(job.id).state.ended
            or not worker.is_alive
            or worker.said("disk trouble")
        )
    )
    said = logs_below(cluster.folder)
    assert "shard claimed" in said
    assert MARKER not in said
    for at in range(100):
        assert answer_to(f"{MARKER} {at}", seed=None) not in said
    assert MARKER not in everything_in(cluster)


def test_no_password_is_shown_or_logged(
    tmp_path: Path, postgres_url: str, guarded_broker: str
) -> None:
    database = make_url(postgres_url).set(password=DATABASE_PASSWORD)
    urls = {
        "database_url": database.render_as_string(hide_password=False),
        "broker_url": guarded_broker,
    }
    with (
        running_cluster(tmp_path, **urls) as cluster,
        processes(cluster.settings, tmp_path) as started,
    ):
        stack = started.script(STACK, testing.FAST)
        job = cluster.submit(100)
        cluster.drain(job)
        assert_hidden("".join(commands_of(pid) for pid in descendants(stack.pid)))
        with redis.Redis.from_url(guarded_broker) as client:
            client.config_set("requirepass", "changed")
            client.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: stack.said("Cannot connect") or stack.said("unavailable"))
        wait_until(lambda: stack.said("invalid username-password") or stack.said("WRONGPASS"))
    assert_hidden(logs_below(tmp_path))


def test_no_password_is_shown_by_a_command_that_fails(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from batchgen_cli.main import cli

    variables = {
        "BATCHGEN_HOME": str(tmp_path),
        "BATCHGEN_DATABASE_URL": f"postgresql://user:{DATABASE_PASSWORD}@127.0.0.1:9/db",
        "BATCHGEN_BROKER_URL": f"redis://:{PASSWORD}@127.0.0.1:9/0",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    for words in (["ls", "-v"], ["doctor"], ["config", "show"]):
        result = CliRunner().invoke(cli, words, env=variables)
        assert result.output
        assert_hidden(result.output)
    assert_hidden(logs_below(tmp_path))


def assert_hidden(said: str) -> None:
    """Fail where one of the passwords can be read."""
    assert said
    assert PASSWORD not in said
    assert DATABASE_PASSWORD not in said


def logs_below(folder: Path) -> str:
    """Return everything that was logged into files."""
    found = [path.read_text(encoding="utf-8", errors="replace") for path in folder.rglob("*.log")]
    return "\n".join(found) or "no log"


def everything_in(cluster: Cluster) -> str:
    """Return the content of every table."""
    with cluster.store.database.begin_reading() as connection:
        tables = [f'SELECT * FROM "{table.name}"' for table in metadata.sorted_tables]  # noqa: S608
        return "\n".join(str(connection.execute(text(query)).all()) for query in tables)


def descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def commands_of(pid: int) -> str:
    """Return what a list of processes shows of one."""
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ") + "\n"
