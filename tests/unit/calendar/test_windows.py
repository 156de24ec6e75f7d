from __future__ import annotations

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchgen.calendar.windows import Window
from batchgen.errors import InvalidParameter

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600.0

# 2026-01-01 to 2027-12-31: four changes of the clock in Berlin
moments = st.integers(min_value=1_767_225_600, max_value=1_830_297_600)
minutes = st.integers(min_value=0, max_value=24 * 60 - 1)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("22:00-06:00 Europe/Berlin", "22:00-06:00 Europe/Berlin"),
        (" 9:30 - 17:45  UTC ", "09:30-17:45 UTC"),
        ("00:00-24:00 UTC", "00:00-24:00 UTC"),
        ("22:00-24:00 UTC", "22:00-24:00 UTC"),
        ("24:00-06:00 UTC", "00:00-06:00 UTC"),
    ],
)
def test_reads_and_shows_windows(text: str, canonical: str) -> None:
    assert str(Window.parse(text)) == canonical
    assert str(Window.parse(canonical)) == canonical


def test_without_a_zone_takes_this_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert str(Window.parse("22:00-06:00")) == "22:00-06:00 Asia/Tokyo"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "night",
        "22:00",
        "22-06 UTC",
        "25:00-06:00 UTC",
        "22:60-06:00 UTC",
        "24:01-06:00 UTC",
        "22:00-22:00 UTC",
        "00:00-00:00 UTC",
        "22:00-06:00 Mars/Olympus",
        "22:00-06:00 ../../etc/passwd",
        "22:00-06:00 UTC and more",
    ],
)
def test_refuses_what_is_no_window(text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        Window.parse(text)
    assert caught.value.param == "window"


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-22 21:59:59", False),
        ("2026-11-22 22:00:00", True),
        ("2026-11-22 23:59:59", True),
        ("2026-11-23 00:00:00", True),
        ("2026-11-23 05:59:59", True),
        ("2026-11-23 06:00:00", False),
    ],
)
def test_reaches_over_midnight(moment: str, is_open: bool) -> None:
    assert Window.parse("22:00-06:00 Europe/Berlin").is_open(berlin(moment)) is is_open


def test_follows_the_clock_on_the_wall() -> None:
    window = Window.parse("22:00-06:00 Europe/Berlin")
    winter, summer = datetime(2026, 1, 5, 21, 30, tzinfo=UTC), datetime(2026, 7, 5, 20, tzinfo=UTC)
    assert window.is_open(winter.timestamp())  # 22:30
    assert window.is_open(summer.timestamp())  # 22:00
    assert not window.is_open(summer.timestamp() - 1.0)


class TestChangeOfTheClock:
    # Berlin: 2026-03-29 02:00 → 03:00, 2026-10-25 03:00 → 02:00

    def test_a_short_night(self) -> None:
        window = Window.parse("22:00-06:00 Europe/Berlin")
        assert window.seconds_left(berlin("2026-03-28 22:00")) == 7 * HOUR

    def test_a_long_night(self) -> None:
        window = Window.parse("22:00-06:00 Europe/Berlin")
        assert window.seconds_left(berlin("2026-10-24 22:00")) == 9 * HOUR

    def test_an_hour_that_comes_twice(self) -> None:
        window = Window.parse("02:00-03:00 Europe/Berlin")
        assert window.seconds_left(berlin("2026-10-25 02:00")) == 2 * HOUR

    def test_an_hour_that_does_not_come(self) -> None:
        window = Window.parse("02:00-03:00 Europe/Berlin")
        assert window.next_open(berlin("2026-03-29 00:00")) == berlin("2026-03-30 02:00")

    def test_an_opening_that_the_change_skips(self) -> None:
        window = Window.parse("02:30-06:00 Europe/Berlin")
        assert window.next_open(berlin("2026-03-29 01:00")) == berlin("2026-03-29 03:00")


def test_the_whole_day_never_closes() -> None:
    window = Window.parse("00:00-24:00 UTC")
    assert window.is_open(0.0)
    assert window.seconds_left(0.0) == math.inf
    assert window.next_open(12.5) == 12.5


@settings(max_examples=150, deadline=None)
@given(moments, minutes, minutes, zones)
def test_opens_next_exactly_where_it_was_closed(ts: int, start: int, end: int, zone: str) -> None:
    if start == end:
        return
    window = Window.parse(f"{clock(start)}-{clock(end)} {zone}")
    opens = window.next_open(float(ts))
    assert window.is_open(opens)
    assert opens == ts or not window.is_open(opens - 0.5)
    left = window.seconds_left(opens)
    assert left > 0
    assert not window.is_open(opens + left)
    assert window.is_open(opens + left - 0.5)
