"""Faults 39 to 44, 46, 50 and 56: inputs and names that mean no good, from submit to dataset."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.rows import ResultRow
from batchgen.core.states import JobState
from batchgen.errors import BadLines, BatchgenError, EmptyInput, InvalidInput
from batchgen.inputs.stored_input import input_key
from batchgen.jobs.creation.sharding import MIN_SHARD_ROWS
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.service.submission import Submission
from batchgen_workers import testing
from tests.support.cluster import PATIENCE, Cluster
from tests.support.homes import MODEL
from tests.support.nursery import run_process
from tests.support.permissions import writable
from tests.support.workers import questions, wait_until

GOOD = b'{"prompt": "Count to 7", "temperature": 0}'
ANSWER = testing.answer_to("Count to 7", seed=None)
READ_LIMIT = 64 << 20  # bytes
MEBIBYTE = 1 << 20
DEEP = b"[" * 100_000


@pytest.fixture
def service(cluster: Cluster) -> Iterator[Service]:
    """The library of the cluster's home, with a coordinator and a worker beside it."""
    cluster.coordinator()
    cluster.worker()
    with closing(Service(cluster.settings)) as service:
        yield service


def submit(service: Service, content: bytes, **fields: Any) -> JobRecord:
    """Submit a file whose bad lines become error rows."""
    values = {"model": MODEL, "on_invalid": "row-error", **fields}
    return service.submit(io.BytesIO(content), Submission(**values))


def codes(rows: list[ResultRow]) -> list[str | None]:
    """Return the error of each row, None for an answer."""
    return [row.error.code if row.error else None for row in rows]


def drain(cluster: Cluster, job: JobRecord) -> list[ResultRow]:
    """Return the rows of a job that must end; which of them fail is the test's to say."""
    wait_until(lambda: cluster.store.jobs.by_id(job.id).state.ended)
    rows = cluster.count(job)
    cluster.toll.false_errors = 0
    return rows


FILES: dict[str, tuple[bytes, list[str | None]]] = {
    "no final line feed": (GOOD + b"\n" + GOOD, [None, None]),
    "CRLF": (GOOD + b"\r\n" + GOOD + b"\r\n", [None, None]),
    "blank lines": (
        GOOD + b"\n\n  \t\n" + GOOD + b"\n",
        [None, "blank_line", "blank_line", None],
    ),
    "blank lines at the end": (GOOD + b"\n" + GOOD + b"\n\n \t\r\n\n", [None, None]),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD + b"\n", [None, None]),
    "invalid UTF-8": (
        GOOD + b'\n{"prompt": "\xc3\x28"}\n' + GOOD + b"\n",
        [None, "invalid_text", None],
    ),
    "U+2028 in a line": (
        GOOD + '\n{"prompt": "a\u2028b\u0085c"}\n'.encode() + GOOD + b"\n",
        [None, None, None],
    ),
}


@pytest.mark.fault(39, "empty, CRLF, blank lines, BOM, invalid UTF-8, U+2028")
def test_39_a_row_is_what_a_line_feed_ends(cluster: Cluster, service: Service) -> None:
    with pytest.raises(EmptyInput):
        submit(service, b"")
    jobs = {name: submit(service, content) for name, (content, _) in FILES.items()}
    for name, (content, expected) in FILES.items():
        cluster.toll.injections += 1
        assert len(expected) == content.rstrip().count(b"\n") + 1, name
        rows = drain(cluster, jobs[name])
        assert codes(rows) == expected, name
        assert rows[0].choices[0].text == ANSWER
    cluster.check()


LINES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{oops", "invalid_json"),
    "no object": (b"[1]", "not_an_object"),
    "100,000 levels": (b'{"prompt": "x", "extra": ' + DEEP, "invalid_json"),
    "100,000 levels, closed": (
        b'{"prompt": "x", "extra": ' + DEEP + b"]" * 100_000 + b"}",
        "invalid_json",
    ),
    "a number of 5,000 digits": (b'{"prompt": "x", "seed": ' + b"9" * 5_000 + b"}", "invalid_"),
    "NaN": (b'{"prompt": "x", "temperature": NaN}', "invalid_json"),
    "a name twice": (b'{"prompt": "x", "prompt": "y"}', "invalid_json"),
    "half a character": (b'{"prompt": "\\ud83d"}', "invalid_text"),
    "NUL": (b'{"prompt": "a\\u0000b"}', "invalid_text"),
    "a raw NUL": (b'{"prompt": "a\x00b"}', "invalid_"),
    "two objects": (GOOD + GOOD, "invalid_json"),
}


@pytest.mark.fault(40, "bad JSON, nesting, long numbers, NaN, twice, surrogates, NUL")
def test_40_a_line_that_is_no_json_is_its_own_error(cluster: Cluster, service: Service) -> None:
    cluster.toll.injections = len(LINES)
    content = b"".join(GOOD + b"\n" + line + b"\n" for line, _ in LINES.values()) + GOOD
    rows = drain(cluster, submit(service, content))
    for at, (name, (_, code)) in enumerate(LINES.items()):
        assert str(codes(rows)[2 * at + 1]).startswith(code), name
    assert {row.choices[0].text for row in rows[::2]} == {ANSWER}
    cluster.check()


FIELDS: dict[str, tuple[dict[str, Any], str | None]] = {
    "no id": ({}, None),
    "an id that is a number": ({"id": 17}, None),
    "an id of another type": ({"custom_id": ["a"]}, "invalid_type"),
    "an empty id": ({"custom_id": ""}, "invalid_value"),
    "an id of 1 MB": ({"custom_id": "x" * 1_000_000}, "invalid_value"),
    "a prompt of another type": ({"prompt": 7}, "invalid_type"),
    "a field nobody knows": ({"colour": "blue"}, None),  # the caller's own
    "a parameter misspelt": ({"max_tokns": 5}, "unknown_parameter"),
    "a parameter of others": ({"echo": True}, "unsupported_parameter"),
    "a million samples": ({"n": 10**6}, "invalid_value"),
    "a billion tokens": ({"max_tokens": 10**9}, "invalid_value"),
    "negative tokens": ({"max_tokens": -1}, "invalid_value"),
    "100,000 stop strings": ({"stop": [str(at) for at in range(100_000)]}, "invalid_value"),
    "an infinite temperature": ({"temperature": 1e308}, "invalid_value"),
    "a tool": ({"tools": [{"type": "function"}]}, "unsupported_parameter"),
}


@pytest.mark.fault(41, "ids missing, twice, wrong; wrong types; absurd values")
def test_41_a_field_out_of_bounds_is_its_rows_error(cluster: Cluster, service: Service) -> None:
    cluster.toll.injections = len(FIELDS) + 1
    lines = [json.dumps({"prompt": "x", **fields}).encode() for fields, _ in FIELDS.values()]
    rows = drain(cluster, submit(service, b"\n".join(lines)))
    assert dict(zip(FIELDS, codes(rows), strict=True)) == {
        name: code for name, (_, code) in FIELDS.items()
    }
    columns = {"columns": ["max_tokns", "echo"]}  # which the worker must know of, too
    kept = drain(cluster, submit(service, b"\n".join(lines[7:9]), params=columns))
    assert [json.loads(str(row.extra)) for row in kept] == [{"max_tokns": 5}, {"echo": True}]
    assert codes(kept) == [None, None]
    twice = b'{"id": "a", "prompt": "x"}\n'
    with pytest.raises(BadLines, match=r"line 3: .* line 1") as error:
        submit(service, twice + GOOD + b"\n" + twice)
    assert error.value.total == 1
    cluster.check()


@pytest.mark.fault(42, "prompts too long or empty, a line of 1 MiB and a byte")
def test_42_what_does_not_fit_is_refused_and_never_cut(cluster: Cluster, service: Service) -> None:
    whole = b'{"prompt": "x", "extra": "'
    longest = whole + b"x" * (MEBIBYTE - len(whole) - 2) + b'"}'
    asked = {
        json.dumps({"prompt": "word " * testing.MAX_LENGTH}).encode(): "context_length_exceeded",
        b'{"prompt": ""}': "invalid_value",
        b'{"messages": []}': "invalid_value",
        longest: None,
        longest + b" ": "line_too_long",
        GOOD: None,
    }
    cluster.toll.injections = len(asked)
    rows = drain(cluster, submit(service, b"\n".join(asked)))
    assert codes(rows) == list(asked.values())
    assert json.loads(str(rows[3].extra))["extra"] == "x" * (MEBIBYTE - len(whole) - 2)
    cluster.check()


@pytest.mark.fault(43, "one row; a shard's rows, one more, one less")
def test_43_shards_tile_whatever_the_number_of_rows(cluster: Cluster, service: Service) -> None:
    size = MIN_SHARD_ROWS
    for n_rows in (1, size - 1, size, size + 1, 2 * size - 1, 2 * size + 1):
        cluster.toll.injections += 1
        job = submit(service, b"\n".join([GOOD] * n_rows))
        assert codes(drain(cluster, job)) == [None] * n_rows
    cluster.check()


class Counting(io.BytesIO):
    """A file that knows how much of it was read."""

    n_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.n_read += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self.n_read += count
        return count


def zipped() -> bytes:
    """Return an archive with a prompt file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("prompts.jsonl", GOOD)
    return file.getvalue()


COMPRESSED: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(GOOD),
    "a bomb of 256 MiB": lambda: gzip.compress(bytes(256 << 20), 9),
    "bzip2": lambda: bz2.compress(GOOD),
    "gzip in gzip": lambda: gzip.compress(gzip.compress(GOOD)),
    "gzip cut short": lambda: gzip.compress(GOOD * 1000)[:-20],
    "zip": zipped,
    "100 MB of noise behind a gzip header": lambda: gzip.compress(GOOD) + b"\xff" * 100_000_000,
}


@pytest.mark.fault(44, "gzip bombs, nested and cut gzip, zip")
def test_44_what_is_compressed_is_refused_by_name(cluster: Cluster) -> None:
    with closing(Service(cluster.settings)) as service:
        for name, make in COMPRESSED.items():
            cluster.toll.injections += 1
            file = Counting(make())
            submission = Submission(model=MODEL, on_invalid="row-error")
            with pytest.raises(InvalidInput, match=r"(?i)zip"):
                service.submit(file, submission)
            assert file.n_read < READ_LIMIT, name
            assert [path for path in cluster.home.rglob("*") if "inputs" in path.parts[-2]] == []
    cluster.check()


@pytest.mark.fault(46, "the input overwritten after the submit")
@pytest.mark.parametrize("when", ["before any shard", "between shards"])
def test_46_an_input_that_changed_fails_the_job(cluster: Cluster, when: str) -> None:
    cluster.coordinator()
    job = cluster.submit(questions(3 * MIN_SHARD_ROWS, max_tokens=2))
    path = cluster.storage.path(input_key(job.input_sha256))
    if when == "between shards":
        first = cluster.worker(failpoint="part.committed=stop:1")
        cluster.await_held(first)
    cluster.hurt()
    writable(path).write_bytes(path.read_bytes().replace(b"Count to", b"Lie about"[:8]))
    if when == "between shards":
        first.kill()
    cluster.worker()
    wait_until(lambda: cluster.store.jobs.by_id(job.id).state.ended)
    ended = cluster.store.jobs.by_id(job.id)
    assert (ended.state, ended.dataset_path) == (JobState.FAILED, None)
    assert "changed" in str(ended.error)


def with_few_files(arguments: list[str]) -> int:
    """Be a process of the stack that may open few files."""
    limit = int(arguments[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return run_process(arguments[1:])


@pytest.mark.fault(50, "64 open files, and too few of them")
@pytest.mark.parametrize("limit", [64, 28, 12])
def test_50_few_open_files_lose_no_row(cluster: Cluster, limit: int) -> None:
    cluster.coordinator()
    job = cluster.submit()
    poor = cluster.start("worker", with_few_files, [str(limit), "worker", MODEL, testing.FAST])
    cluster.hurt()
    if limit == 12:  # too few to begin with
        assert poor.wait() != 0
        assert poor.said("Too many open files")
        cluster.worker()
    cluster.drain(job, within=3 * PATIENCE)  # each trouble with the disk is a pause of 15 seconds


WITH_NUL = "canary\x00.jsonl"  # no text: the row has the id of one without
TRICKS = (
    "../canary",
    "../../canary",
    "..%2fcanary",
    "%2e%2e/canary",
    "/etc/passwd",
    WITH_NUL,
    "....//canary",
    "..\\canary",
    "~/canary",
    "-canary",
    "link",
)


@pytest.mark.fault(56, "paths in every id and name")
def test_56_no_name_becomes_a_path(cluster: Cluster, service: Service, tmp_path: Path) -> None:
    secret = "nobody should read this"
    for place in (tmp_path / "canary", cluster.home / "canary", cluster.home.parent / "canary"):
        place.write_text(secret)
    (cluster.home / "link").symlink_to(tmp_path / "canary")
    before = {path for path in tmp_path.iterdir() if path.suffix != ".log"}
    lines = [json.dumps({"id": trick, "prompt": "Count to 7"}).encode() for trick in TRICKS]
    job = submit(service, b"\n".join(lines), name="../canary", idempotency_key="../../key")
    for trick in TRICKS:
        cluster.toll.injections += 1
        if trick != "../canary":  # which is the name of a job, and names that alone
            for refused in (service.job, service.cancel, service.remove):
                with pytest.raises(BatchgenError):
                    refused(trick)
        with pytest.raises(BatchgenError) as error:
            service.models.get(trick)
        assert secret not in str(error.value)
        with pytest.raises(BatchgenError):
            service.models.import_model(trick, cluster.model.path)
        with pytest.raises(BatchgenError):
            service.submit(io.BytesIO(GOOD), Submission(model=trick))
    rows = drain(cluster, job)
    assert [row.custom_id for row in rows if row.error] == [f"row-{TRICKS.index(WITH_NUL)}"]
    assert secret not in str(rows)
    cluster.check()
    after = {path for path in tmp_path.iterdir() if path.suffix != ".log"}
    assert after == before
