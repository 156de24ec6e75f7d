"""The zone of a machine is what its clock shows; a name that others know, or none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest

from batchgen.calendar import zones
from batchgen.calendar.times import parse_time, show_time
from batchgen.calendar.windows import Window
from batchgen.calendar.zones import local_clock, local_zone
from batchgen.errors import InvalidParameter

BERLIN = files("tzdata").joinpath("zoneinfo", "Europe", "Berlin").read_bytes()
SUMMER = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()
NEW_YORK = "EST5EDT,M3.2.0,M11.1.0"


@pytest.fixture
def etc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a folder that stands for /etc, empty, on a machine without TZ."""
    monkeypatch.delenv("TZ", raising=False)
    monkeypatch.setattr(zones, "LOCALTIME", tmp_path / "localtime")
    monkeypatch.setattr(zones, "NAME_FILE", tmp_path / "timezone")
    return tmp_path


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a rule without a name in TZ, for the C library too."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", NEW_YORK)
        time.tzset()
        yield
    time.tzset()


def table(folder: Path, name: str, content: bytes) -> Path:
    path = folder / "zoneinfo" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_a_link_names_it(etc: Path) -> None:
    (etc / "localtime").symlink_to(table(etc, "Europe/Stockholm", BERLIN))
    assert local_zone(param="window").key == "Europe/Stockholm"


@pytest.mark.parametrize("name", [None, "Etc/UTC", "Mars/Olympus", "# nothing", b"\xff"])
def test_a_copy_is_known_by_its_content(etc: Path, name: str | bytes | None) -> None:
    (etc / "localtime").write_bytes(BERLIN)
    if name is not None:
        content = name if isinstance(name, bytes) else name.encode()
        (etc / "timezone").write_bytes(content + b"\n")
    assert local_zone(param="window").key == "Europe/Berlin"
    assert str(Window.parse("22:00-06:00")) == "22:00-06:00 Europe/Berlin"
    assert show_time(SUMMER) == "2026-07-01 14:00:00+02:00"


def test_the_name_of_the_machine_is_taken_where_it_is_true(etc: Path) -> None:
    (etc / "localtime").write_bytes(BERLIN)
    (etc / "timezone").write_text("Europe/Stockholm\n")
    assert local_zone(param="window").key == "Europe/Stockholm"


def test_a_file_mounted_over_another_zone_s_counts(etc: Path) -> None:
    (etc / "localtime").symlink_to(table(etc, "Etc/UTC", BERLIN))
    assert local_zone(param="window").key == "Europe/Berlin"


def test_a_link_into_tables_that_are_not_installed_is_a_name(etc: Path) -> None:
    (etc / "localtime").symlink_to("/nowhere/zoneinfo/Asia/Tokyo")
    assert local_zone(param="window").key == "Asia/Tokyo"


def test_without_anything_a_machine_is_in_utc(etc: Path) -> None:
    assert local_zone(param="window").key == "UTC"


def test_a_clock_that_no_zone_shows_has_no_name(etc: Path) -> None:
    changed = BERLIN.replace(b"M3.5.0", b"M4.5.0")  # summer begins in April
    assert changed != BERLIN
    (etc / "localtime").write_bytes(changed)
    with pytest.raises(InvalidParameter, match="has no name that others know") as caught:
        Window.parse("22:00-06:00")
    assert caught.value.param == "window"
    assert str(etc / "localtime") in caught.value.message
    assert local_clock(param="time") is None


@pytest.mark.parametrize("content", [b"", b"Europe/Berlin\n"])
def test_a_file_that_is_no_zone_s_is_refused(etc: Path, content: bytes) -> None:
    (etc / "localtime").write_bytes(content)
    for read in (lambda: Window.parse("22:00-06:00"), lambda: parse_time("22:00", now=0.0)):
        with pytest.raises(InvalidParameter, match="cannot be read from"):
            read()


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("Asia/Tokyo", "Asia/Tokyo"),
        (":Asia/Tokyo", "Asia/Tokyo"),
        ("EST5EDT", "EST5EDT"),
        ("", "UTC"),
    ],
)
def test_the_variable_goes_first(
    etc: Path, monkeypatch: pytest.MonkeyPatch, setting: str, name: str
) -> None:
    (etc / "localtime").write_bytes(BERLIN)
    monkeypatch.setenv("TZ", setting)
    assert local_zone(param="window").key == name


def test_the_variable_may_be_a_file(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", str(table(etc, "mine", BERLIN)))
    assert local_zone(param="window").key == "Europe/Berlin"


@pytest.mark.usefixtures("rule")
def test_a_rule_is_followed_for_moments_and_refused_for_windows() -> None:
    with pytest.raises(InvalidParameter, match="Name the one that is meant") as caught:
        Window.parse("22:00-06:00")
    assert NEW_YORK in caught.value.message
    assert str(Window.parse("22:00-06:00 Europe/Berlin")) == "22:00-06:00 Europe/Berlin"
    assert show_time(SUMMER) == "2026-07-01 08:00:00-04:00"
    assert parse_time("22:00", now=SUMMER) == SUMMER + 14 * 3600
    winter = datetime(2026, 12, 1, 3, tzinfo=UTC).timestamp()
    assert parse_time("2026-11-30 22:00", now=SUMMER) == winter


@pytest.mark.parametrize("setting", ["<+03>-3", "CET-1CEST,M3.5.0,M10.5.0/3", "XST-5:30"])
def test_a_rule_has_no_name(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("TZ", setting)
    assert local_clock(param="time") is None


@pytest.mark.parametrize("setting", ["Mars/Olympus", "Europe/Berlim", "/nowhere/zone", "CET,"])
def test_what_is_neither_a_zone_nor_a_rule_is_not_taken_for_utc(
    monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("TZ", setting)
    for read in (lambda: Window.parse("22:00-06:00"), lambda: parse_time("22:00", now=0.0)):
        with pytest.raises(InvalidParameter, match=r"TZ"):
            read()
    assert show_time(SUMMER) == "2026-07-01 12:00:00+00:00"


def test_what_is_shown_is_read_as_the_same_moment_anywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    shown = show_time(SUMMER)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert parse_time(shown, now=0.0) == SUMMER
