from __future__ import annotations

import json

import pytest

from batchgen.jobs.records.job_records import JobRecord
from tests.support.homes import pin_model
from tests.unit.cli.conftest import Command

PLACES = ("home", "server")


def test_ls_in_every_format(batchgen: Command) -> None:
    pin_model(batchgen.home, "other")
    assert batchgen.ok("models", "ls", "-q").stdout == "other\ntiny\n"
    assert [model["name"] for model in batchgen.json("models", "ls")] == ["other", "tiny"]
    assert "LlamaForCausalLM" in batchgen.ok("models", "ls").stdout


@pytest.mark.home
def test_show(batchgen: Command) -> None:
    shown = batchgen.json("models", "show", "tiny")
    assert {key: shown[key] for key in ("name", "path", "dtype", "max_length")} == {
        "name": "tiny",
        "path": str(batchgen.home / "models" / "tiny"),
        "dtype": "float32",
        "max_length": 256,
    }
    assert "256 tokens" in batchgen.ok("models", "show", "tiny").stdout
    assert batchgen.ok("models", "show", "tiny", "-q").stdout.strip() == shown["path"]


def test_an_unknown_model_is_code_4(batchgen: Command, where: str) -> None:
    for command in ("show", "verify", "rm") if where == "home" else ("show",):
        result = batchgen("models", command, "tinny")
        assert result.exit_code == 4
        assert "Did you mean tiny?" in result.stderr


@pytest.mark.home
def test_verify_names_what_does_not_belong(batchgen: Command) -> None:
    assert batchgen.ok("models", "verify", "tiny").stdout == "ok\n"
    (batchgen.home / "models" / "tiny" / "more.bin").write_bytes(b"x")
    result = batchgen("models", "verify", "tiny", "--json")
    assert result.exit_code == 1
    assert "more.bin" in json.loads(result.stdout)["problems"][0]


@pytest.mark.home
def test_rm(batchgen: Command) -> None:
    batchgen.ok("models", "rm", "tiny")
    assert batchgen.ok("models", "ls", "-q").stdout == ""


@pytest.mark.home
def test_rm_of_a_model_that_a_job_needs(batchgen: Command, job: JobRecord) -> None:
    result = batchgen("models", "rm", "tiny")
    assert result.exit_code == 4
    assert job.public_id in result.stderr
    assert batchgen.ok("models", "ls", "-q").stdout == "tiny\n"


@pytest.mark.home
def test_import_refuses_what_is_not_there(batchgen: Command) -> None:
    result = batchgen("models", "import", "mine", batchgen.folder / "none")
    assert result.exit_code == 2
    assert batchgen.ok("models", "ls", "-q").stdout == "tiny\n"


@pytest.mark.home
def test_import_refuses_a_name_that_is_taken(batchgen: Command) -> None:
    result = batchgen("models", "import", "tiny", batchgen.folder)
    assert result.exit_code == 2
    assert "batchgen models rm tiny" in result.stderr


@pytest.mark.home
def test_import_refuses_pickles(batchgen: Command) -> None:
    folder = batchgen.folder / "unsafe"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    assert batchgen("models", "import", "mine", folder).exit_code == 2
