from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sqlalchemy import make_url

from batchgen.settings import Settings
from tests.support.repository import ROOT

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

DOCUMENT = ROOT / "docs" / "configuration.md"


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Return {dotted name: field} of every setting, nested ones included."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= fields(kind, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = field
    return found


def variable(name: str) -> str:
    return "BATCHGEN_" + name.upper().replace(".", "__")


def shown(field: FieldInfo) -> str:
    """Return a default as the document writes it; one that depends on the machine is described."""
    if field.default is PydanticUndefined:
        return "the platform's data folder"
    return f"`{field.default}`" if field.default != "" else "empty"


def row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | `{variable(name)}` | {shown(field)} | {field.description} |"


FIELDS = fields(Settings)


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_has_a_default_and_a_description(name: str) -> None:
    field = FIELDS[name]
    assert not field.is_required()
    assert field.description


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_is_documented_as_it_is(name: str) -> None:
    assert row(name, FIELDS[name]) in DOCUMENT.read_text(encoding="utf-8").splitlines()


def test_no_setting_is_documented_that_is_gone() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    documented = {
        line.split("`")[1] for line in lines if line.startswith("| `") and "BATCHGEN_" in line
    }
    assert documented == set(FIELDS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a user file of their own, and no variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("batchgen.settings.USER_FILE", tmp_path / "user.toml")
    monkeypatch.delenv("BATCHGEN_HOME")
    return tmp_path


def test_the_first_source_that_names_a_setting_wins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings().lease_ttl == 60
    (folder / "user.toml").write_text("lease_ttl = 1\ndrain_grace = 1\n")
    assert Settings().lease_ttl == 1
    (folder / "batchgen.toml").write_text("lease_ttl = 2\n")
    assert Settings().lease_ttl == 2
    (folder / ".env").write_text("BATCHGEN_LEASE_TTL=3\n")
    assert Settings().lease_ttl == 3
    monkeypatch.setenv("BATCHGEN_LEASE_TTL", "4")
    assert Settings().lease_ttl == 4
    assert Settings(lease_ttl=5).lease_ttl == 5
    assert Settings().drain_grace == 1


def test_nested_settings_have_two_underscores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "batchgen.toml").write_text('[engine]\ndevice = "cuda:1"\nblock_size = 32\n')
    monkeypatch.setenv("BATCHGEN_ENGINE__DEVICE", "cpu")
    assert Settings().engine.device == "cpu"
    assert Settings().engine.block_size == 32


def test_the_database_is_sqlite_in_the_home_unless_set(folder: Path) -> None:
    home = Settings(home=folder / "home")
    assert home.effective_database_url == f"sqlite:///{folder / 'home' / 'batchgen.db'}"
    other = Settings(database_url="postgresql://somewhere/db")
    assert other.effective_database_url == "postgresql://somewhere/db"


@pytest.mark.parametrize("name", ["with space", "what?mode=ro", "50%41", "ä"])
def test_a_home_of_any_name_keeps_its_database(tmp_path: Path, name: str) -> None:
    url = make_url(Settings(home=tmp_path / name).effective_database_url)
    assert url.database == str(tmp_path / name / "batchgen.db")
