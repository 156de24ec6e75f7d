from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from batchgen.calendar.times import parse_time, rfc3339, seconds_of
from batchgen.errors import InvalidParameter

ZONE = "Europe/Berlin"
NOW = datetime(2026, 11, 22, 21, 30, tzinfo=ZoneInfo(ZONE)).timestamp()


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ZONE)


def local(*fields: int, zone: str = ZONE) -> float:
    return datetime(*fields, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("+90s", 90),
        ("+2h", 7200),
        ("+1h30m", 5400),
        ("+1.5h", 5400),
        ("+1d", 86400),
        ("+1w", 604800),
    ],
)
def test_counts_from_now(text: str, seconds: float) -> None:
    assert parse_time(text, now=NOW) == NOW + seconds


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("22:00", local(2026, 11, 22, 22)),
        ("21:30", local(2026, 11, 22, 21, 30)),
        ("21:00", local(2026, 11, 23, 21)),
        ("6:05", local(2026, 11, 23, 6, 5)),
        ("22:00 America/New_York", local(2026, 11, 22, 22, zone="America/New_York")),
    ],
)
def test_an_hour_is_the_next_time_the_clock_shows_it(text: str, moment: float) -> None:
    assert parse_time(text, now=NOW) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23 22:00", local(2026, 11, 23, 22)),
        ("2026-11-23", local(2026, 11, 23)),
        ("2026-11-23T22:00:00", local(2026, 11, 23, 22)),
        ("2026-11-23 22:00 Asia/Tokyo", local(2026, 11, 23, 22, zone="Asia/Tokyo")),
        ("2026-11-23T22:00:00Z", datetime(2026, 11, 23, 22, tzinfo=UTC).timestamp()),
        ("2026-11-23T22:00:00+02:00", datetime(2026, 11, 23, 20, tzinfo=UTC).timestamp()),
        (" 2026-11-23T22:00:00.250Z ", datetime(2026, 11, 23, 22, tzinfo=UTC).timestamp() + 0.25),
    ],
)
def test_reads_dates(text: str, moment: float) -> None:
    assert parse_time(text, now=NOW) == moment


def test_an_hour_that_is_skipped_is_read_by_the_clock_before() -> None:
    assert parse_time("2026-03-29 02:30", now=NOW) == local(2026, 3, 29, 3, 30)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "+",
        "+2",
        "2h",
        "+2x",
        "25:00",
        "12:60",
        "2026-13-01",
        "2026-11-23 22:00 Mars/X",
        "+99999999999999w",
        "0000-01-01",
        "22:00Z",
    ],
)
def test_refuses_what_is_no_moment(text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_time(text, now=NOW, param="deadline")
    assert caught.value.param == "deadline"


def test_rfc_3339_is_in_utc_and_is_read_again() -> None:
    assert rfc3339(1_790_000_000.5) == "2026-09-21T14:13:20.500Z"
    assert seconds_of("2026-09-21T14:13:20.500Z") == 1_790_000_000.5
    assert (rfc3339(None), seconds_of(None)) == (None, None)
