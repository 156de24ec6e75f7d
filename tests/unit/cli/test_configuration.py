from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.configuration import load_settings, variable_of
from batchgen.errors import InvalidParameter
from batchgen.settings import Settings
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


@pytest.mark.parametrize("chosen", ["flag", "variable"])
def test_a_profile_is_an_origin(batchgen: Command, chosen: str) -> None:
    Path("batchgen.toml").write_text(
        "drain_grace = 1\n"
        "[profile.one]\nlease_ttl = 30\ndrain_grace = 2\n"
        "[profile.two]\nlease_ttl = 9\n"
    )
    batchgen.env |= {"BATCHGEN_LEASE_TTL": "20"}
    flags = ["--profile", "one"] if chosen == "flag" else []
    if not flags:
        batchgen.env["BATCHGEN_PROFILE"] = "one"
    shown = {one["name"]: one for one in batchgen.json(*flags, "config", "show")}
    found = {
        name: (shown[name]["value"], shown[name]["origin"])
        for name in ("lease_ttl", "drain_grace", "profile")
    }
    table = "batchgen.toml [profile.one]"
    ttl = (30.0, table) if flags else (20.0, "BATCHGEN_LEASE_TTL")
    origin = "flag" if flags else "BATCHGEN_PROFILE"
    assert found == {"lease_ttl": ttl, "drain_grace": (2.0, table), "profile": ("one", origin)}


def test_config_show_never_prints_a_key(batchgen: Command) -> None:
    batchgen.env["BATCHGEN_API_KEY"] = "bg_s3cret"
    Path("batchgen.toml").write_text('[profile.one]\napi_key = "bg_s3cret"\n')
    for form in ([], ["--json"], ["--origin"]):
        shown = batchgen.ok("config", "show", *form).stdout
        assert "s3cret" not in shown
        assert "***" in shown
    assert "s3cret" not in repr(Settings(api_key="s3cret"))


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


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder, with a user's file of its own."""
    monkeypatch.chdir(tmp_path)
    files = (Path("batchgen.toml"), tmp_path / "config.toml")
    monkeypatch.setattr("batchgen.setting_files.TOML_FILES", files)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("batchgen.toml", b"lease_ttl = 30\nhome = ", "file batchgen.toml is no TOML: "),
        ("batchgen.toml", b"lease_ttl = 30\nhome = ", "line 2"),
        ("config.toml", b"[engine\n", "config.toml is no TOML: "),
        ("batchgen.toml", b"a = 1\nb = '\xff'\n", "batchgen.toml is not UTF-8, from line 2"),
        (".env", b"A=1\nBATCHGEN HOME=x\n", ".env, line 2, cannot be read"),
        (".env", b"A=1\n\nBATCHGEN_HOME='x\n", ".env, line 3, cannot be read"),
        (".env", b"A=1\nB='\xff'\n", ".env is not UTF-8, from line 2"),
        (".env", b"A=1\nBATCHGEN_LEASE_TTL=soon\n", "is set by .env, line 2."),
        ("batchgen.toml", b"# mine\nlease_ttl = 'soon'\n", "set by batchgen.toml, line 2."),
        ("batchgen.toml", b"[engine]\nthreads = -1\n", "set by batchgen.toml, line 2."),
        ("batchgen.toml", b"\nengine.threads = -1\n", "set by batchgen.toml, line 2."),
        ("batchgen.toml", b"\n\nengine = {threads = -1}\n", "set by batchgen.toml, line 3."),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    folder: Path, name: str, content: bytes, place: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InvalidParameter) as caught:
        load_settings()
    assert place in caught.value.message


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "batchgen.toml").mkdir()
    with pytest.raises(InvalidParameter, match=r"file batchgen\.toml cannot be read: is a"):
        load_settings()


def test_what_another_program_has_in_the_env_file_is_its_own(folder: Path) -> None:
    (folder / ".env").write_text("not a statement\nBATCHGEN_LEASE_TTL=30\n")
    assert load_settings().lease_ttl == 30


def test_a_variable_and_an_option_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidParameter, match="set by an option or an argument"):
        load_settings(engine={"block_size": "0"})
    monkeypatch.setenv("BATCHGEN_LEASE_TTL", "soon")
    with pytest.raises(InvalidParameter, match="set by the variable BATCHGEN_LEASE_TTL"):
        load_settings()


def test_the_variable_of_a_setting_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of("engine.kv_memory"), "2G")
    assert Settings().engine.kv_memory == "2G"
