from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.errors import InvalidParameter
from batchgen.settings import Settings
from batchgen_cli.configuration import load_settings, variable_of
from tests.unit.cli.conftest import Command


@pytest.mark.parametrize(
    ("database", "broker"),
    [
        ("postgresql://me:s3cret@host/db", "redis://:s3cret@host/0"),
        ("postgresql://me:a/bs3cret@host/db", "redis://:a/bs3cret@host/0"),  # no broker's
        ("postgresql://me:a@bs3cret@host/db", "redis://:12/s3cret@host/0"),
    ],
)
def test_config_show_never_prints_a_password(batchgen: Command, database: str, broker: str) -> None:
    batchgen.env["BATCHGEN_DATABASE_URL"] = database
    batchgen.env["BATCHGEN_BROKER_URL"] = broker
    for form in ([], ["--json"], ["--origin"]):
        shown = batchgen.ok("config", "show", *form).stdout
        assert "s3cret" not in shown
        assert "***" in shown


def test_every_setting_has_an_origin(batchgen: Command) -> None:
    Path("batchgen.toml").write_text("lease_ttl = 30\n[engine]\nblock_size = 32\n")
    Path(".env").write_text("BATCHGEN_DRAIN_GRACE=5\nBATCHGEN_LEASE_TTL=20\n")
    batchgen.env["BATCHGEN_ENGINE__DEVICE"] = "cpu"
    shown = {setting["name"]: setting for setting in batchgen.json("config", "show")}
    expected = {
        "home": (str(batchgen.home), "BATCHGEN_HOME"),
        "engine.device": ("cpu", "BATCHGEN_ENGINE__DEVICE"),
        "drain_grace": (5.0, ".env"),
        "lease_ttl": (20.0, ".env"),
        "engine.block_size": (32, "batchgen.toml"),
        "stall_timeout": (600.0, "default"),
    }
    found = {name: (shown[name]["value"], shown[name]["origin"]) for name in expected}
    assert found == expected


def test_every_setting_is_shown_and_described(batchgen: Command) -> None:
    shown = batchgen.json("config", "show")
    tops = {setting["name"].partition(".")[0] for setting in shown}
    assert tops == set(Settings.model_fields)
    assert all(setting["description"] for setting in shown)


def test_flags_go_before_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_HOME", "/nowhere")
    monkeypatch.setenv("BATCHGEN_ENGINE__DEVICE", "cuda:0")
    monkeypatch.setenv("BATCHGEN_ENGINE__THREADS", "3")
    settings = load_settings(home=tmp_path, engine={"device": "cpu", "block_size": None})
    assert settings.home == tmp_path
    assert (settings.engine.device, settings.engine.threads) == ("cpu", 3)


def test_a_home_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(home=Path("here")).home == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings(home=Path("~/there")).home == tmp_path / "there"


def test_a_bad_value_names_its_setting_and_variable() -> None:
    with pytest.raises(InvalidParameter, match=r"engine\.block_size \(BATCHGEN_ENGINE__BLOCK_SIZE"):
        load_settings(engine={"block_size": "0"})


def test_a_file_that_is_no_toml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("batchgen.toml").write_text("lease_ttl = ")
    with pytest.raises(InvalidParameter, match="cannot be read"):
        load_settings()


def test_the_variable_of_a_setting_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of("engine.kv_memory"), "2G")
    assert Settings().engine.kv_memory == "2G"
