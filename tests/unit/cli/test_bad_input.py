"""Every way to ask for something wrong: a named error, its code, a remedy, nothing half-written."""

from __future__ import annotations

import bz2
import json
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchgen.service import Service
from batchgen_workers.service import coordinator, worker
from tests.support.homes import prompts
from tests.unit.cli.conftest import Command

if TYPE_CHECKING:
    from click.testing import Result

GOOD = prompts(2)


@pytest.fixture(params=["submit", "run"])
def entrance(request: pytest.FixtureRequest, batchgen: Command) -> Entrance:
    """Both commands that take a prompt file."""
    return Entrance(batchgen, request.param)


class Entrance:
    """Runs `submit` or `run` on a file and checks that nothing is left of it."""

    def __init__(self, batchgen: Command, name: str) -> None:
        self.batchgen = batchgen
        self.name = name
        self.out = batchgen.folder / "out"

    def refuses(self, content: bytes | None, *args: object, code: int, saying: str) -> Result:
        """Run the command, and check the error and the traces."""
        path = self.batchgen.folder / "bad.jsonl"
        if content is not None:
            path.write_bytes(content)
        model = () if "-m" in args else ("-m", "tiny")
        out = ("-o", self.out) if self.name == "run" else ()
        result = self.batchgen(self.name, path, *model, *out, *args)
        assert result.exit_code == code, result.output
        assert saying in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
        self.left_nothing()
        return result

    def left_nothing(self) -> None:
        """Check that there is no job, no input and no output folder."""
        inputs = self.batchgen.home / "inputs"
        assert not inputs.exists() or not list(inputs.iterdir())
        assert self.batchgen.ok("ls", "-q").stdout == ""
        assert not self.out.exists()


def test_missing_file(entrance: Entrance) -> None:
    entrance.refuses(None, code=2, saying="no such file or directory. Check the path.")


def test_a_folder_as_file(entrance: Entrance) -> None:
    (entrance.batchgen.folder / "bad.jsonl").mkdir()
    entrance.refuses(None, code=2, saying="is a directory")


def test_empty_file(entrance: Entrance) -> None:
    entrance.refuses(b"", code=2, saying="one JSON object a line")


def test_not_utf_8(entrance: Entrance) -> None:
    entrance.refuses(GOOD + b'{"prompt": "\xff"}\n', code=2, saying="line 3")


def test_bad_json_names_the_line_and_the_remedy(entrance: Entrance) -> None:
    result = entrance.refuses(GOOD + b"{oops\n", code=2, saying="line 3")
    assert "--on-invalid row-error" in result.stderr


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        (b"prompt,topic\nWhy?,sky\nWho?,ada\n" * 50, "a table (CSV)"),
        (json.dumps([{"prompt": "x"}] * 50, indent=1).encode(), "a JSON array"),
        (json.dumps({"prompt": "x"}, indent=1).encode() * 50, "JSON over several lines"),
        (GOOD.decode().encode("utf-16-le"), "UTF-16LE"),
        (bz2.compress(GOOD), "bzip2-compressed"),
    ],
)
def test_a_file_of_another_format_gets_one_error(
    entrance: Entrance, content: bytes, saying: str
) -> None:
    for policy in ("refuse", "row-error"):
        result = entrance.refuses(content, "--on-invalid", policy, code=2, saying=saying)
        assert len(result.stderr.splitlines()) == 1


def test_a_device_is_no_file_of_prompts(entrance: Entrance) -> None:
    (entrance.batchgen.folder / "bad.jsonl").symlink_to("/dev/zero")
    entrance.refuses(None, code=2, saying="it is a device")


def test_duplicate_ids_name_both_lines(entrance: Entrance) -> None:
    line = b'{"id": "a", "prompt": "x"}\n'
    result = entrance.refuses(line + GOOD + line, code=2, saying="line 4")
    assert "line 1" in result.stderr


def test_unknown_model_names_the_one_meant(entrance: Entrance) -> None:
    entrance.refuses(GOOD, "-m", "tinny", code=4, saying="Did you mean tiny?")


@pytest.mark.parametrize("param", ["n=0", "max_tokens=0", "max_tokens=x", "temperature=9"])
def test_parameters_out_of_range(entrance: Entrance, param: str) -> None:
    entrance.refuses(GOOD, "-p", param, code=2, saying=param.partition("=")[0])


def test_a_parameter_nobody_knows(entrance: Entrance) -> None:
    entrance.refuses(GOOD, "-p", "temprature=0", code=2, saying="temprature")


def test_a_parameter_without_value(entrance: Entrance) -> None:
    entrance.refuses(GOOD, "-p", "temperature", code=2, saying="KEY=VALUE")


@pytest.mark.parametrize(
    ("option", "value", "saying"),
    [
        ("--not-before", "soon", "is not a moment"),
        ("--deadline", "2001-01-01", "has passed"),
        ("--window", "22-6", "is not a window"),
        ("--window", "22:00-06:00 Mars/Base", "is not a time zone"),
        ("--priority", "high", "priority"),
    ],
)
def test_times(batchgen: Command, option: str, value: str, saying: str) -> None:
    Entrance(batchgen, "submit").refuses(GOOD, option, value, code=2, saying=saying)


def test_engine_flags(batchgen: Command) -> None:
    entrance = Entrance(batchgen, "run")
    entrance.refuses(GOOD, "--dtype", "float8", code=2, saying="engine.dtype")
    entrance.refuses(GOOD, "--block-size", "0", code=2, saying="engine.block_size")


def test_a_setting_that_cannot_be_used(batchgen: Command) -> None:
    batchgen.env["BATCHGEN_LEASE_TTL"] = "-1"
    result = batchgen("ls")
    assert result.exit_code == 2
    assert "BATCHGEN_LEASE_TTL" in result.stderr


def test_database_of_a_newer_schema(batchgen: Command) -> None:
    batchgen.ok("ls")
    with sqlite3.connect(batchgen.home / "batchgen.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    result = batchgen("submit", batchgen.file("p.jsonl", GOOD), "-m", "tiny")
    assert result.exit_code == 3
    assert "newer" in result.stderr
    assert "Upgrade batchgen" in result.stderr
    assert not (batchgen.home / "inputs").exists()


def test_a_database_that_is_none(batchgen: Command) -> None:
    (batchgen.home / "batchgen.db").write_bytes(b"not a database at all" * 100)
    result = batchgen("ls")
    assert result.exit_code == 3
    assert "Restore it from a backup" in result.stderr


def test_a_database_that_does_not_answer(batchgen: Command) -> None:
    batchgen.env["BATCHGEN_DATABASE_URL"] = "postgresql://me:secret@127.0.0.1:9/none"
    result = batchgen("submit", batchgen.file("p.jsonl", GOOD), "-m", "tiny")
    assert result.exit_code == 3
    assert "BATCHGEN_DATABASE_URL" in result.stderr
    assert "secret" not in result.stderr
    assert not (batchgen.home / "inputs").exists()


@pytest.mark.parametrize("command", [("worker", "-m", "tiny"), ("coordinator",)])
def test_a_broker_that_is_not_there_is_waited_for_and_one_that_is_not_named_is_not(
    batchgen: Command, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "run_worker", lambda *_: None)
    monkeypatch.setattr(coordinator, "run_coordinator", lambda *_: None)
    result = batchgen(*command)
    assert (result.exit_code, "batchgen up" in result.stderr) == (3, True)
    batchgen.env["BATCHGEN_BROKER_URL"] = "redis://:secret@127.0.0.1:9/0"
    result = batchgen(*command)
    assert (result.exit_code, "Waiting for it." in result.stderr) == (0, True)
    assert "secret" not in result.stderr
    batchgen.env["BATCHGEN_BROKER_URL"] = "amqp://127.0.0.1"
    assert batchgen(*command).exit_code == 2


def test_a_home_that_cannot_be_made(batchgen: Command) -> None:
    batchgen.file("plain", b"")
    result = batchgen("--home", batchgen.folder / "plain" / "home", "ls")
    assert result.exit_code == 3
    assert "BATCHGEN_HOME" in result.stderr


def test_a_job_that_does_not_exist(batchgen: Command) -> None:
    for command in ("status", "watch", "wait", "pause", "resume", "cancel", "rm", "results"):
        result = batchgen(command, "nightly")
        assert (result.exit_code, result.stdout) == (4, "")
        assert "batchgen ls" in result.stderr


def test_several_jobs_of_one_name(batchgen: Command) -> None:
    ids = [batchgen.submit("--name", "nightly") for _ in range(2)]
    result = batchgen("cancel", "nightly")
    assert result.exit_code == 4
    assert all(public_id in result.stderr for public_id in ids)


def test_errors_are_json_where_json_is_asked_for(batchgen: Command) -> None:
    result = batchgen("status", "nightly", "--json")
    error = json.loads(result.stderr)["error"]
    assert (error["type"], error["exit_code"]) == ("JobNotFound", 4)


def test_the_output_folder_of_another_job(batchgen: Command, service: Service) -> None:
    from batchgen.service.run_folder import RunFolder
    from batchgen.service.submission import Submission

    out = batchgen.folder / "out"
    first = batchgen.file("first.jsonl", prompts(3))
    folder = RunFolder(out, service.settings)
    with first.open("rb") as source:
        folder.open(source, Submission(model="tiny"))
    folder.service.close()
    before = sorted(path for path in out.rglob("*") if path.is_file())
    for other in (
        (batchgen.file("other.jsonl", GOOD), "-m", "tiny"),
        (first, "-m", "tiny", "-p", "temperature=0"),
    ):
        result = batchgen("run", *other, "-o", out)
        assert result.exit_code == 2
        assert "Hint: -o names another" in result.stderr
    assert sorted(path for path in out.rglob("*") if path.is_file()) == before


def test_an_output_folder_with_files_of_somebody_else(batchgen: Command) -> None:
    out = batchgen.folder / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("do not touch")
    result = batchgen("run", batchgen.file("p.jsonl", GOOD), "-m", "tiny", "-o", out)
    assert result.exit_code == 2
    assert "thesis.tex" in result.stderr
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_standard_input_cut_short(batchgen: Command) -> None:
    result = batchgen("submit", "-", "-m", "tiny", stdin=b'{"prompt": "x"')
    assert result.exit_code == 2
    assert "line 1" in result.stderr


def test_no_traceback_from_the_real_process(tmp_path: Path) -> None:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "batchgen_cli.main", "submit", "none.jsonl", "-m", "tiny"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"BATCHGEN_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
