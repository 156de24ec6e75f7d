"""doctor, db, completion: the commands around a home."""

from __future__ import annotations

import pytest

from batchgen.jobs.schema import HEAD
from batchgen.service import doctor
from batchgen.service.doctor import Check, Result
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


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(batchgen: Command, shell: str) -> None:
    assert "_BATCHGEN_COMPLETE" in batchgen.ok("completion", shell).stdout


def test_models_are_completed(batchgen: Command) -> None:
    batchgen.env |= {
        "_BATCHGEN_COMPLETE": "bash_complete",
        "COMP_WORDS": "batchgen models show t",
        "COMP_CWORD": "3",
    }
    assert "plain,tiny" in batchgen().stdout
