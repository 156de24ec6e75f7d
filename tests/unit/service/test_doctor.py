from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from batchgen.database.identity import open_storage
from batchgen.service import doctor
from batchgen.service.database import open_database
from batchgen.service.doctor import Check, Result, examine
from batchgen.settings import Settings
from batchgen.storage.store_id import read_store_id
from tests.support.homes import pin_model


@pytest.fixture(autouse=True)
def quick_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for something lighter than torch."""
    monkeypatch.setattr(doctor, "TORCH_REPORT", "print('2.13.0 cpu only')")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home that does not exist yet."""
    return Settings(home=tmp_path / "home")


def look(settings: Settings, name: str) -> Check:
    (check,) = [check for check in examine(settings) if check.name == name]
    return check


def test_a_fresh_home_is_healthy_and_stays_unmade(settings: Settings) -> None:
    checks = examine(settings)
    assert {check.name: check.result for check in checks} == {
        "python": Result.OK,
        "torch": Result.OK,
        "compiler": Result.OK,
        "home": Result.OK,
        "disk": Result.OK,
        "database": Result.OK,
        "schema": Result.OK,
        "store": Result.OK,
        "broker": Result.OK,
        "models": Result.WARNING,
        "endpoints": Result.OK,
    }
    assert not settings.home.exists()


def test_a_home_that_is_not_the_database_s(settings: Settings, tmp_path: Path) -> None:
    with closing(open_database(settings)) as database:
        open_storage(database, settings.home).establish()
    store = look(settings, "store")
    assert (store.result, store.detail) == (Result.OK, read_store_id(settings.home))
    elsewhere = settings.model_copy(
        update={"home": tmp_path / "other", "database_url": settings.effective_database_url}
    )
    check = look(elsewhere, "store")
    assert check.failed
    assert f"belongs to the store {store.detail}" in check.detail


def test_a_missing_compiler_is_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = look(settings, "compiler")
    assert (check.result, check.detail) == (
        Result.WARNING,
        "no C++ compiler on the PATH (g++, c++, clang++)",
    )
    assert "several times slower" in (check.remedy or "")


@pytest.mark.parametrize(("bits", "result"), [(0o755, Result.WARNING), (0o2770, Result.OK)])
def test_a_home_that_every_user_may_read(settings: Settings, bits: int, result: Result) -> None:
    settings.home.mkdir()
    settings.home.chmod(bits)
    check = look(settings, "home")
    assert check.result is result
    assert (check.remedy is not None) == (result is Result.WARNING)


def test_models_are_named(settings: Settings) -> None:
    pin_model(settings.home)
    assert look(settings, "models").detail == "tiny"


def test_torch_that_does_not_load(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TORCH_REPORT", "raise ImportError('libcudart is missing')")
    check = look(settings, "torch")
    assert check.failed
    assert "libcudart is missing" in check.detail


def test_torch_that_takes_for_ever(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired(sys.executable, 1)

    monkeypatch.setattr(doctor.subprocess, "run", hang)  # type: ignore[attr-defined]
    assert look(settings, "torch").failed


def test_a_full_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK", shutil.disk_usage("/").total * 2 + (1 << 50))
    assert look(settings, "disk").failed


def test_a_database_that_does_not_answer(settings: Settings) -> None:
    lost = settings.model_copy(update={"database_url": "postgresql://me:pw@127.0.0.1:9/none"})
    for name in ("database", "schema"):
        check = look(lost, name)
        assert check.failed
        assert "pw@" not in check.detail


def test_a_schema_that_is_newer(settings: Settings) -> None:
    open_database(settings).close()
    with closing(sqlite3.connect(settings.home / "batchgen.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert not look(settings, "database").failed
    assert look(settings, "schema").failed


def test_brokers(settings: Settings, broker_url: str) -> None:
    there = look(settings.model_copy(update={"broker_url": broker_url}), "broker")
    assert there.result is Result.OK
    assert there.detail.startswith(("Valkey", "Redis"))
    lost = settings.model_copy(update={"broker_url": "redis://:pw@127.0.0.1:9/0"})
    gone = look(lost, "broker")
    assert gone.failed
    assert "pw" not in gone.detail


def test_a_home_that_cannot_be_written(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)  # type: ignore[attr-defined]
    assert look(settings, "home").failed
