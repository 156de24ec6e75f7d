"""doctor, db, completion: the commands around a home."""

from __future__ import annotations

import pytest

from batchgen.database.revisions import HEAD
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import doctor
from batchgen.service.doctor import Check, Result
from batchgen_migrations import downgrade
from tests.support.homes import prompts
from tests.unit.cli.conftest import Command


def checks(*results: Result) -> list[Check]:
    return [
        Check(name=f"check-{number}", result=result, detail="seen", remedy="mend it")
        for number, result in enumerate(results)
    ]


@pytest.mark.parametrize(
    ("results", "code"),
    [((Result.OK, Result.WARNING), 0), ((Result.OK, Result.FAILED), 3)],
)
def test_doctor_is_red_only_for_failures(
    batchgen: Command, monkeypatch: pytest.MonkeyPatch, results: tuple[Result, ...], code: int
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda _: checks(*results))
    result = batchgen("doctor")
    assert result.exit_code == code
    assert "check-1" in result.stdout
    assert "mend it" in result.stderr


def test_doctor_as_json_and_quiet(batchgen: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda _: checks(Result.OK, Result.WARNING))
    assert [check["result"] for check in batchgen.json("doctor")] == ["ok", "warning"]
    monkeypatch.setattr(doctor, "examine", lambda _: checks(Result.OK, Result.FAILED))
    assert batchgen("doctor", "-q").stdout == "check-1\n"


def test_a_fresh_home_needs_no_upgrade(batchgen: Command) -> None:
    assert batchgen.ok("db", "current").stdout == "none\n"
    assert batchgen("db", "check").exit_code == 3
    assert not (batchgen.home / "batchgen.db").exists()
    batchgen.ok("ls")
    assert batchgen.ok("db", "current").stdout == f"{HEAD}\n"
    assert batchgen.json("db", "check") == {"revision": HEAD, "ok": True}


def test_upgrade_twice(batchgen: Command) -> None:
    assert batchgen.json("db", "upgrade") == {"before": None, "revision": HEAD}
    result = batchgen.ok("db", "upgrade")
    assert (result.stdout, result.stderr) == (f"{HEAD}\n", "Already up to date\n")


def test_a_database_that_was_named_is_not_made_on_the_way(batchgen: Command) -> None:
    file = batchgen.folder / "named.db"
    batchgen.env["BATCHGEN_DATABASE_URL"] = f"sqlite:///{file}"
    result = batchgen("ls")
    assert result.exit_code == 3
    assert "batchgen db upgrade" in result.stderr
    assert not file.exists()
    batchgen.ok("db", "upgrade")
    batchgen.ok("ls")


def test_postgresql_is_upgraded_first(batchgen: Command, postgres_url: str) -> None:
    downgrade(postgres_url, "base")
    batchgen.env["BATCHGEN_DATABASE_URL"] = postgres_url
    prompt_file = batchgen.file("p.jsonl", prompts(2))
    result = batchgen("submit", prompt_file, "-m", "tiny")
    assert result.exit_code == 3
    assert "batchgen db upgrade" in result.stderr
    assert not (batchgen.home / "inputs").exists()
    batchgen.ok("db", "upgrade")
    public_id = batchgen.ok("submit", prompt_file, "-m", "tiny").stdout.strip()
    assert batchgen.json("status", public_id)["rows"]["total"] == 2
    assert batchgen.ok("fsck").stdout == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(batchgen: Command, shell: str) -> None:
    assert "_BATCHGEN_COMPLETE" in batchgen.ok("completion", shell).stdout


def complete(batchgen: Command, line: str) -> list[str]:
    batchgen.env["_BATCHGEN_COMPLETE"] = "bash_complete"
    batchgen.env["COMP_WORDS"] = line
    batchgen.env["COMP_CWORD"] = str(len(line.split(" ")) - 1)
    result = batchgen()
    assert result.stderr == ""
    return result.stdout.split()


def test_names_are_completed(batchgen: Command, job: JobRecord) -> None:
    assert complete(batchgen, "batchgen models show t") == ["plain,tiny"]
    assert complete(batchgen, "batchgen status ni") == ["plain,nightly"]
    assert complete(batchgen, "batchgen rm 0") == [f"plain,{job.public_id}"]
    assert complete(batchgen, "batchgen sub") == ["plain,submit"]


def test_completion_is_silent_about_errors(batchgen: Command) -> None:
    (batchgen.home / "batchgen.db").write_bytes(b"not a database at all" * 100)
    assert complete(batchgen, "batchgen status ni") == []
