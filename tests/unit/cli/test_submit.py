from __future__ import annotations

from batchgen.core.rows import InputRow
from batchgen.inputs.stored_input import parse_rows
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support.homes import prompts
from tests.unit.cli.conftest import Command

PLACES = ("home", "server")


def test_prints_the_id_alone_on_stdout(batchgen: Command, service: Service) -> None:
    prompt_file = batchgen.file("p.jsonl", prompts(4))
    result = batchgen.ok("submit", prompt_file, "--model", "tiny")
    job = service.job(result.stdout.strip())
    assert result.stdout == f"{job.public_id}\n"
    assert f"batchgen watch {job.public_id}" in result.stderr
    assert (job.n_rows, job.state, job.model) == (4, "queued", "tiny")
    assert service.storage.path(f"inputs/{job.input_sha256}").read_bytes() == prompts(4)


def test_json_describes_the_job(batchgen: Command) -> None:
    prompt_file = batchgen.file("p.jsonl", prompts(2))
    shown = batchgen.json(
        "submit", prompt_file, "-m", "tiny", "-p", "temperature=0", "-p", "stop=END"
    )
    assert shown["state"] == "queued"
    assert shown["params"] == {"temperature": 0, "stop": "END"}
    reasons = {"stop": 0, "length": 0}
    assert shown["rows"] == {
        "total": 2,
        "done": 0,
        "ok": 0,
        "failed": 0,
        "finish_reasons": reasons,
    }


def test_a_dash_is_standard_input(batchgen: Command, service: Service) -> None:
    result = batchgen.ok("submit", "-", "-m", "tiny", stdin=prompts(3))
    assert service.job(result.stdout.strip()).n_rows == 3


def test_everything_asked_for_is_stored(batchgen: Command, service: Service) -> None:
    public_id = batchgen.submit(
        *("--name", "nightly", "--priority", "7", "--not-before", "2030-01-01T00:00:00Z"),
        *("--window", "22:00-06:00 Europe/Berlin", "--deadline", "2031-01-01T00:00:00Z"),
    )
    job = service.job(public_id)
    assert (job.name, job.priority, job.window_spec) == (
        "nightly",
        7,
        "22:00-06:00 Europe/Berlin",
    )
    assert (job.not_before, job.deadline) == (1893456000.0, 1924992000.0)


def test_one_key_is_one_job(batchgen: Command) -> None:
    first = batchgen.submit("--idempotency-key", "k1")
    assert batchgen.submit("--idempotency-key", "k1") == first
    assert batchgen.submit() != first


def test_one_key_for_two_files_is_refused(batchgen: Command) -> None:
    batchgen.submit("--idempotency-key", "k1")
    other = batchgen.file("other.jsonl", prompts(5))
    result = batchgen("submit", other, "-m", "tiny", "--idempotency-key", "k1")
    assert result.exit_code == 4
    assert "Choose another key" in result.stderr


def test_bad_lines_become_error_rows_when_asked(batchgen: Command, service: Service) -> None:
    prompt_file = batchgen.file("p.jsonl", prompts(2) + b"{oops\n")
    result = batchgen.ok("submit", prompt_file, "-m", "tiny", "--on-invalid", "row-error")
    assert service.job(result.stdout.strip()).n_rows == 3


def test_a_parameter_given_twice_is_a_usage_error(batchgen: Command) -> None:
    prompt_file = batchgen.file("p.jsonl", prompts(2))
    result = batchgen(
        "submit", prompt_file, "-m", "tiny", "-p", "temperature=0", "-p", "temperature=1"
    )
    assert result.exit_code == 2
    assert "temperature is given twice" in result.stderr


def test_json_and_quiet_exclude_each_other(batchgen: Command, job: JobRecord) -> None:
    assert batchgen("status", job.public_id, "--json", "-q").exit_code == 2


def test_columns_are_kept_with_the_job(batchgen: Command, service: Service) -> None:
    line = b'{"prompt": "x", "n": "a dozen", "max_tokns": 5, "echo": true}\n'
    prompt_file = batchgen.file("p.jsonl", line)
    assert batchgen("submit", prompt_file, "-m", "tiny").exit_code == 2
    columns = ("--columns", "n,max_tokns", "--columns", "echo")
    shown = batchgen.json("submit", prompt_file, "-m", "tiny", "-p", "temperature=0", *columns)
    assert shown["params"] == {"temperature": 0, "columns": ["echo", "max_tokns", "n"]}
    job = service.job(shown["id"])
    [row] = parse_rows(
        service.storage, job.input_sha256, 0, 1, defaults=job.params, model=job.model
    )
    assert isinstance(row, InputRow)
    assert row.extra == {"n": "a dozen", "max_tokns": 5, "echo": True}
    assert row.params.temperature == 0


def test_columns_are_names(batchgen: Command) -> None:
    result = batchgen("validate", batchgen.file("p.jsonl", prompts(1)), "--columns", "a,,b")
    assert result.exit_code == 2
    assert "empty name" in result.stderr
