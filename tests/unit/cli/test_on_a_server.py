"""Commands on a server: addresses, keys, and a server that is away."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2
import pyarrow.parquet as pq
import pytest
from pyarrow import BufferReader

from batchgen.errors import ServerUnavailable
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.tenants.principal import Scope
from tests.support.homes import answer_some, finish, prompts
from tests.unit.cli.conftest import Command

PLACES = ("server",)


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited between attempts; no time passes."""
    seconds: list[float] = []
    monkeypatch.setattr("batchgen.client.connection.sleep", seconds.append)
    return seconds


def fetch(batchgen: Command, address: str) -> list[int]:
    """Return the numbers of the rows that an address has, for a client with the key."""
    key = batchgen.env["BATCHGEN_API_KEY"]
    answer = httpx2.get(address, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    return list(pq.read_table(BufferReader(answer.content))["row"].to_pylist())


def test_an_address_of_results_is_one_that_can_be_read(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    running = service.job(batchgen.submit(rows=40))
    answer_some(service, running, failing=[2])
    address = batchgen.ok("results", running.public_id, "--partial").stdout.strip()
    assert fetch(batchgen, address) == list(range(32))
    finish(service, job, failing=[1])
    assert fetch(batchgen, batchgen.ok("results", "nightly").stdout.strip()) == [0, 1, 2, 3]


def test_a_home_of_this_machine_is_not_opened(batchgen: Command, job: JobRecord) -> None:
    batchgen.ok("status", "nightly")
    assert not (batchgen.folder / "elsewhere").exists()


def test_failed_rows_are_shown_by_a_command_that_works_here(
    batchgen: Command, service: Service, job: JobRecord
) -> None:
    finish(service, job, failing=[2])
    result = batchgen("watch", "nightly")
    assert result.exit_code == 1
    assert f"batchgen results {job.public_id} --format jsonl" in result.stderr
    assert "/errors" not in result.stderr


@pytest.mark.parametrize("key", [None, "bg_0123456789abcdef_nonsense"])
def test_a_key_that_the_server_refuses_is_code_4(
    batchgen: Command, key: str | None, waited: list[float]
) -> None:
    batchgen.env["BATCHGEN_API_KEY"] = key
    result = batchgen("ls", "--json")
    assert (result.exit_code, result.stdout, waited) == (4, "", [])
    assert json.loads(result.stderr)["error"]["type"] == "KeyRefused"


def test_a_server_that_is_away_is_code_3(batchgen: Command, waited: list[float]) -> None:
    batchgen.env["BATCHGEN_URL"] = "http://127.0.0.1:1"
    result = batchgen("ls")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "http://127.0.0.1:1 cannot be reached" in result.stderr
    assert waited


@pytest.mark.parametrize("command", ["watch", "wait"])
def test_a_server_that_is_away_for_a_while_ends_nothing(
    batchgen: Command,
    service: Service,
    job: JobRecord,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from batchgen.client.jobs import Jobs

    retrieve, away = Jobs.retrieve, [ServerUnavailable("cannot be reached")] * 3

    def look(jobs: Jobs, ref: str) -> object:
        if away:
            raise away.pop()
        return retrieve(jobs, ref)

    finish(service, job)
    monkeypatch.setattr(Jobs, "retrieve", look)
    monkeypatch.setattr("batchgen_cli.follow.sleep", lambda _: None)
    result = batchgen(command, job.public_id)
    assert (result.exit_code, away) == (0, [])
    assert result.stderr.count("Waiting: cannot be reached") == 1


def test_a_broken_stream_leaves_no_file(
    batchgen: Command, service: Service, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(response: httpx2.Response, chunk_size: int | None = None) -> Iterator[bytes]:
        yield b'{"row":0}\n'
        raise httpx2.ReadError("reset")

    finish(service, job)
    monkeypatch.setattr(httpx2.Response, "iter_bytes", broken)
    out = batchgen.folder / "rows.jsonl"
    result = batchgen("results", "nightly", "--format", "jsonl", "-o", out)
    assert (result.exit_code, out.exists()) == (3, False)


def test_a_time_means_this_machine_s_clock(
    batchgen: Command, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may stand in another zone."""
    sent = []
    monkeypatch.setattr(
        "batchgen.service.submission.parse_time",
        lambda text, *, now, param: sent.append(text) or 2_000_000_000.0,  # type: ignore[func-returns-value]
    )
    batchgen.submit("--not-before", "22:00")
    assert sent == ["22:00", "2033-05-18T03:33:20.000Z"]


def test_the_name_of_the_key_is_never_shown(batchgen: Command) -> None:
    key = str(batchgen.env["BATCHGEN_API_KEY"])
    for words in (("config", "show"), ("ls", "-v"), ("status", "none", "-v")):
        assert key not in batchgen(*words).output


def test_a_model_is_shown_without_a_folder(batchgen: Command) -> None:
    shown = batchgen.json("models", "show", "tiny")
    assert (shown["name"], shown["max_length"], "path" in shown) == ("tiny", 256, False)
    assert "256 tokens" in batchgen.ok("models", "show", "tiny").stdout
    assert batchgen.ok("models", "show", "tiny", "-q").stdout == "tiny\n"


def test_a_shell_that_completes_a_word_asks_once(
    batchgen: Command, job: JobRecord, waited: list[float]
) -> None:
    asked = {"_BATCHGEN_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    batchgen.env |= {**asked, "COMP_WORDS": "batchgen status nig"}
    assert "nightly" in batchgen().stdout
    batchgen.env["BATCHGEN_URL"] = "http://127.0.0.1:1"
    assert (batchgen().stdout.strip(), waited) == ("", [])


def test_a_command_says_why_it_waits(
    batchgen: Command, job: JobRecord, waited: list[float]
) -> None:
    batchgen.env["BATCHGEN_URL"] = "http://127.0.0.1:1"
    said = batchgen("status", "nightly").stderr.splitlines()
    assert len(said) == len(waited) + 1
    assert all(line.startswith("Waiting ") for line in said[:-1])
    assert batchgen("status", "nightly", "-q").stderr.count("\n") == 1


def test_a_name_with_a_slash_is_a_name(batchgen: Command) -> None:
    public_id = batchgen.submit("--name", "team/nightly")
    assert batchgen.json("status", "team/nightly")["id"] == public_id
    assert batchgen("status", "team/none").exit_code == 4


def test_a_key_that_may_only_submit_gets_the_id(batchgen: Command, service: Service) -> None:
    scopes = frozenset({Scope.SUBMIT})
    batchgen.env["BATCHGEN_API_KEY"] = service.access.keys.create("local", scopes=scopes).key
    result = batchgen("submit", batchgen.file("p.jsonl", prompts(2)), "-m", "tiny")
    (job,) = service.records()
    assert (result.exit_code, result.stdout) == (4, f"{job.public_id}\n")
    assert "scope" in result.stderr
