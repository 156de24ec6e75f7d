"""Read times as users write them: +2h, 22:00, 2026-11-23 22:00, RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from batchgen.calendar.zones import local_clock, zone_named
from batchgen.errors import InvalidParameter

LONGEST = 10 * 366 * 86400.0  # seconds of a length
SHOWN = 64  # characters of the user's text in a message
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

_AHEAD = re.compile(r"\+(?:\d+(?:\.\d+)?[smhdw])+")
_LENGTH = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_STEP = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_HOUR = re.compile(r"(\d{1,2}):(\d{2})")
_ZONED = re.compile(r"(.*\d)\s+([A-Za-z][\w+\-]*(?:/[\w+\-]+)*)")

FORMS = "+2h, 22:00, 2026-11-23 22:00, 2026-11-23 22:00 Europe/Berlin or 2026-11-23T22:00:00Z"


def parse_time(text: str, *, now: float, param: str = "time") -> float:
    """Return the time that `text` means, in seconds since the epoch.

    +2h counts from `now`; 22:00 is the next time the clock shows it. A time without zone or offset
    is in this machine's zone. An hour that a change of the clock skips is read as if the clock had
    not been changed yet. Raises InvalidParameter with `param`.
    """
    try:
        moment = _moment(text.strip(), now=now, param=param)
        datetime.fromtimestamp(moment, UTC)  # raises if the date is out of range
    except (ValueError, OverflowError, OSError):
        raise InvalidParameter(f"{text!r} is not a moment. Write {FORMS}.", param=param) from None
    return moment


def parse_duration(text: str, *, param: str = "duration") -> float:
    """Return the seconds that a length such as 24h or 1d12h means.

    Raises InvalidParameter with `param`, also for a length of zero or of more than ten years.
    """
    seconds = _seconds(text) if _LENGTH.fullmatch(text) else 0.0
    if not 0.0 < seconds <= LONGEST:
        raise InvalidParameter(
            f"{text[:SHOWN]!r} is not a length of time. Write 24h, 90m, 7d or 1d12h.", param=param
        )
    return seconds


def show_time(timestamp: float, *, timespec: str = "seconds") -> str:
    """Return a time in this machine's zone, with its offset from UTC.

    `parse_time` reads it on every machine as the same time.
    """
    try:
        zone = local_clock(param="TZ")
    except InvalidParameter:
        zone = UTC
    local = datetime.fromtimestamp(timestamp, zone)
    return (local if zone else local.astimezone()).isoformat(sep=" ", timespec=timespec)


def rfc3339(timestamp: float | None) -> str | None:
    """Write seconds since the epoch as RFC 3339 in UTC, None as None."""
    if timestamp is None:
        return None
    text = datetime.fromtimestamp(timestamp, tz=UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def seconds_of(text: str | None) -> float | None:
    """Read what `rfc3339` wrote."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def _moment(text: str, *, now: float, param: str) -> float:
    zone: tzinfo | None
    if _AHEAD.fullmatch(text):
        return now + _seconds(text)
    if zoned := _ZONED.fullmatch(text):
        text, zone = zoned.group(1), zone_named(zoned.group(2), param=param)
    else:
        zone = local_clock(param=param)
    if hour := _HOUR.fullmatch(text):
        return _next_hour(int(hour.group(1)), int(hour.group(2)), now=now, zone=zone)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


def _seconds(text: str) -> float:
    return sum(float(count) * SECONDS[unit] for count, unit in _STEP.findall(text))


def _next_hour(hour: int, minute: int, *, now: float, zone: tzinfo | None) -> float:
    today = datetime.fromtimestamp(now, zone).replace(
        hour=hour, minute=minute, second=0, microsecond=0, fold=0
    )
    for days in range(3):
        moment = (today + timedelta(days=days)).timestamp()
        if moment >= now:
            return moment
    raise AssertionError("a clock shows every hour within two days")
