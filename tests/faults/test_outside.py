"""Faults 58 and 60, and what else a row, a template or a model could reach for: a real engine.

One job is run once, by processes that say as much as they can, and looked at from several sides.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from batchgen.core.rows import ResultRow
from batchgen.models.registry import Registry
from tests.support.canary import PROXIES, CanaryServer, canary_server
from tests.support.cluster import Cluster, Toll, running_cluster
from tests.support.processes import Process
from tests.support.tiny_models import CHAT_TEMPLATE, tiny_llama
from tests.support.workers import submit_rows, wait_until

MODEL = "trapped"
MARKER = "zebracrossing"  # in every prompt, in no log
TRAPS = (
    "{% if 'LOOP' in messages[0].content %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}"
    "{% if 'SWELL' in messages[0].content %}{{ messages[0].content * 10 ** 9 }}{% endif %}"
    "{% if 'QUOTE' in messages[0].content %}{{ raise_exception(messages[0].content) }}{% endif %}"
)
TRAPPED = ("LOOP", "SWELL", "QUOTE")
METADATA = "http://169.254.169.254/latest/meta-data/"
ROWS = 12


@dataclass
class Ran:
    """The job after its end, and everything around it."""

    cluster: Cluster
    canary: CanaryServer
    rows: dict[str, ResultRow]
    logs: str
    environment: list[str]  # of the engine child


def run_command(arguments: list[str]) -> int:
    """Be the command line in a process of the cluster."""
    from batchgen_cli.main import cli

    return int(cli.main(arguments, prog_name="batchgen", standalone_mode=False))


@pytest.fixture(scope="module")
def canary() -> Iterator[CanaryServer]:
    with canary_server() as server:
        yield server


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
    broker_server: str,
    canary: CanaryServer,
) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("outside")
    shutil.copyfile(sqlite_template, folder / "batchgen.db")
    url = f"sqlite:///{folder / 'batchgen.db'}"
    with running_cluster(folder, database_url=url, broker_url=broker_server) as cluster:
        source = tiny_llama(folder / "source")
        (source / "chat_template.jinja").write_text(TRAPS + CHAT_TEMPLATE)
        model = Registry(cluster.home / "models").import_model(MODEL, source)
        job = submit_rows(cluster.store, cluster.home, model, asked(canary.url), start=False)
        outside = canary.environment()
        cluster.start("coordinator", run_command, ["coordinator", "-v"], environment=outside)
        worker = cluster.start(
            "worker",
            run_command,
            ["worker", "-m", MODEL, "-v", "--device", "cpu"],
            environment=outside,
            stall_timeout=60.0,
        )
        wait_until(lambda: worker.said("engine ready"))
        (engine,) = worker.children()
        environment = Path(f"/proc/{engine}/environ").read_text(encoding="utf-8").split("\0")
        failing = [name for name in names(canary.url) if not name.startswith("ok-")]
        wait_until(lambda: cluster.store.jobs.by_id(job.id).state.ended)
        rows = cluster.count(job, errors=failing)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        logs = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.log"))
        yield Ran(cluster, canary, {str(row.custom_id): row for row in rows}, logs, environment)


def asked(url: str) -> list[dict[str, Any] | bytes]:
    """Return good rows, rows that lead a template into a trap, and rows that name an address."""
    good = [chat(f"ok-{at}", f"{MARKER} counts to {at}") for at in range(ROWS)]
    trapped = [chat(name, f"{name} {MARKER}") for name in TRAPPED]
    text_alone = [
        {"id": f"ok-text-{at}", "prompt": f"{MARKER} {address}", "max_tokens": 4}
        for at, address in enumerate((METADATA, "file:///etc/passwd", url))
    ]
    # What is no field of ours is the caller's own, and is carried to the output untouched.
    carried = [{**chat("ok-carried", MARKER), "image_url": url, "file": "file:///etc/passwd"}]
    # The last two, which have no id.
    broken = [b'{"id": "broken", "prompt": "' + MARKER.encode(), f'["{MARKER}"]'.encode()]
    return [*good, *trapped, *fetching(url), *text_alone, *carried, *broken]


def names(url: str) -> list[str]:
    """Return the custom ids of the rows that have one."""
    return [str(row["id"]) for row in asked(url) if isinstance(row, dict)]


def fetching(url: str) -> list[dict[str, Any]]:
    """Return rows that ask for something to be fetched."""
    addresses = (url, METADATA, "file:///etc/passwd", "http://[::1]/", "gopher://127.0.0.1/")
    parts = [
        {"type": kind, kind: {"url": address}}
        for kind in ("image_url", "video_url", "input_audio", "file")
        for address in addresses
    ]
    as_parts = [chat(f"part-{at}", [part]) for at, part in enumerate(parts)]
    as_text_too = chat("two-parts", [{"type": "text", "text": MARKER}, parts[0]])
    reference = {"type": "object", "properties": {"a": {"$ref": f"{url}/schema.json"}}}
    return [
        *as_parts,
        as_text_too,
        {**chat("schema", MARKER), "json_schema": reference},
        {**chat("tool", MARKER), "tools": [{"type": "mcp", "server_url": url}]},
        {"id": "field", "messages": [{"role": "user", "content": MARKER, "image_url": url}]},
        {"id": "prompt", "prompt": {"url": url}},
    ]


def chat(name: str, content: Any) -> dict[str, Any]:
    """Return a chat line."""
    return {"id": name, "messages": [{"role": "user", "content": content}], "max_tokens": 4}


@pytest.mark.fault(60, "a template that loops or swells")
def test_60_a_template_costs_its_own_rows_alone(ran: Ran, toll: Toll) -> None:
    toll.injections, toll.rows_in = len(TRAPPED), len(ran.rows)
    for name in TRAPPED:
        error = ran.rows[name].error
        assert error is not None and error.code == "template_error", name
    assert "1 s" in str(ran.rows["LOOP"].error)
    assert "256 MiB" in str(ran.rows["SWELL"].error)
    for at in range(ROWS):
        assert ran.rows[f"ok-{at}"].error is None
    assert "engine died" not in ran.logs
    failed = [row for row in ran.rows.values() if row.error is not None]
    assert len(failed) == len(TRAPPED) + len(fetching(ran.canary.url)) + 2


@pytest.mark.fault(58, "image_url, file://, 169.254.169.254 in any field")
def test_58_a_row_makes_nobody_fetch_anything(ran: Ran, toll: Toll) -> None:
    rows = fetching(ran.canary.url)
    toll.injections, toll.rows_in = len(rows), len(ran.rows)
    for row in rows:
        assert ran.rows[row["id"]].error is not None, row["id"]
    assert ran.canary.hits == []


def test_no_request_leaves_a_worker(ran: Ran) -> None:
    assert "HF_HUB_OFFLINE=1" in ran.environment
    assert f"HF_ENDPOINT={ran.canary.url}" in ran.environment
    assert ran.canary.hits == []


@pytest.mark.long
def test_a_worker_connects_to_its_servers_alone(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: Any
) -> None:
    needs("strace")
    for name, value in ran.canary.environment().items():
        monkeypatch.setenv(name, value)
    cluster, trace = ran.cluster, tmp_path / "trace"
    model = Registry(cluster.home / "models").get(MODEL)
    rows = [chat(f"ok-{at}", MARKER) for at in range(4)]
    job = submit_rows(cluster.store, cluster.home, model, rows, start=False)
    strace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace)]
    worker = [sys.executable, "-m", "batchgen_workers.service.local_process", "worker", MODEL]
    process = Process([*strace, *worker], cluster.settings, tmp_path / "log")
    try:
        wait_until(lambda: cluster.store.jobs.by_id(job.id).state.ended)
        (traced,) = process.children()
        os.kill(traced, signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.end()
    cluster.count(job)
    port = cluster.settings.broker_url.rpartition(":")[2].partition("/")[0]
    connected = re.findall(r"sin6?_port=htons\((\d+)\)", trace.read_text(encoding="utf-8"))
    assert set(connected) == {port}


def test_the_canary_would_sing(canary: CanaryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, canary.url)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(OSError, match="404"):
        # `urlopen` would keep the proxies of this moment for every test after this one.
        urllib.request.build_opener().open("http://example.org/", timeout=5)
    assert canary.hits.pop().startswith(b"GET http://example.org/")
    assert canary.hits == []


def test_no_log_holds_a_prompt_or_an_answer(ran: Ran) -> None:
    answers = {
        choice.text
        for row in ran.rows.values()
        if row.error is None
        for choice in row.choices
        if len(choice.text) > 4
    }
    assert len(answers) > 1
    assert "shard claimed" in ran.logs
    for said in (MARKER, *answers):
        assert said not in ran.logs


def test_no_table_holds_a_prompt(ran: Ran) -> None:
    assert tables_that_hold(ran.cluster, MARKER) == []


def tables_that_hold(cluster: Cluster, marker: str) -> list[str]:
    """Return the tables that hold a text in any of their columns."""
    from batchgen.database.tables import metadata

    with cluster.store.database.begin_reading() as connection:
        found = {
            table.name: str(connection.execute(text(f"SELECT * FROM {table.name}")).all())  # noqa: S608
            for table in metadata.sorted_tables
        }
    assert len(found["shards"]) > 10
    return [name for name, content in found.items() if marker in content]
