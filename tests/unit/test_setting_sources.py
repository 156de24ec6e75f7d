from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.errors import InvalidParameter
from batchgen.setting_sources import OTHER_VARIABLES
from batchgen.settings import Settings
from tests.unit.test_settings import FIELDS, variable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a user file of their own, and no variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("batchgen.settings.USER_FILE", tmp_path / "user.toml")
    monkeypatch.delenv("BATCHGEN_HOME")
    return tmp_path


@pytest.mark.parametrize("where", ["environment", ".env"])
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("BATCHGEN_LEESE_TTL", "BATCHGEN_LEASE_TTL"),
        ("BATCHGEN_HOEM", "BATCHGEN_HOME"),
        ("BATCHGEN_DATABSE_URL", "BATCHGEN_DATABASE_URL"),
        ("BATCHGEN_ENGINE__THREDS", "BATCHGEN_ENGINE__THREADS"),
        ("BATCHGEN_ENGINE_THREADS", "BATCHGEN_ENGINE__THREADS"),
        ("BATCHGEN_FAILPOINTS", "BATCHGEN_FAILPOINT"),
    ],
)
def test_a_misspelt_variable_is_named_with_the_right_one(
    given: str, meant: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == ".env":
        Path(".env").write_text(f"{given}=3\n")
    else:
        monkeypatch.setenv(given, "3")
    with pytest.raises(InvalidParameter, match=rf"{given} \({where}\).*{meant}\?") as caught:
        Settings()
    assert caught.value.param == given


def test_variables_of_somebody_else_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BATCHGEN_TEST_KILLS", "BATCHGEN_IMAGE", "LEESE_TTL", *sorted(OTHER_VARIABLES)):
        monkeypatch.setenv(name, "")
    Path(".env").write_text("OTHER=\nBATCHGEN_IMAGE=here\n")
    assert Settings().lease_ttl == 60


@pytest.mark.parametrize("where", ["environment", ".env"])
@pytest.mark.parametrize("value", ["", "  "])
@pytest.mark.parametrize("name", FIELDS)
def test_an_empty_variable_is_never_a_value(
    name: str, value: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == ".env":
        Path(".env").write_text(f'{variable(name)}="{value}"\n')
    else:
        monkeypatch.setenv(variable(name), value)
    with pytest.raises(InvalidParameter, match=rf"{variable(name)} is empty \({where}\)"):
        Settings()


@pytest.mark.parametrize("file", ["batchgen.toml", "user.toml"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("leese_ttl = 3", r"'leese_ttl'.* 'lease_ttl'\?"),
        ("[engine]\nthreds = 3", r"'engine\.threds'.* 'threads'\?"),
        ("[engin]\nthreads = 3", r"'engin'.* 'engine'\?"),
        ("colour = 'blue'", r"'colour'.*config show"),
        ("home = ''", "home is empty"),
        ("database_url = ' '", "database_url is empty"),
        ("[engine]\ndevice = ''", r"engine\.device is empty"),
    ],
)
def test_a_file_of_settings_holds_settings_only(file: str, content: str, said: str) -> None:
    Path(file).write_text(content)
    with pytest.raises(InvalidParameter, match=said) as caught:
        Settings()
    assert file in caught.value.message
