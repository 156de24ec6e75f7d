"""Find time zones by name, and the time zone of this machine.

    TZ=Europe/Berlin                 its name
    TZ=EST5EDT,M3.2.0,M11.1.0        a rule without a name; only the C library can read it
    no TZ                            /etc/localtime: its content decides, names are only hints

A file that was copied or mounted has the wrong name or none. So a zone counts as the machine's zone
only if it has shown the same local time as the file since 1970.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from importlib.resources import files
from itertools import chain
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo, ZoneInfoNotFoundError, available_timezones

from batchgen.errors import InvalidParameter

LOCALTIME = Path("/etc/localtime")
NAME_FILE = Path("/etc/timezone")
WEEKS = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(weeks=week) for week in range(68 * 52)]

# std offset [dst [offset] [,start,end]], such as <+03>-3 or CET-1CEST,M3.5.0,M10.5.0/3
_ABBREVIATION, _HOURS = r"(?:[A-Za-z]{3,}|<[\w+\-]{3,}>)", r"[+-]?\d{1,3}(?::\d{2}){0,2}"
_RULE = re.compile(rf"{_ABBREVIATION}{_HOURS}(?:{_ABBREVIATION}(?:{_HOURS})?(?:,\S+,\S+)?)?")


def zone_named(name: str, *, param: str) -> ZoneInfo:
    """Return the time zone called `name`; raise InvalidParameter."""
    zone = _known(name)
    if zone is None:
        raise InvalidParameter(
            f"{name!r} is not a time zone. Write a name like Europe/Berlin.", param=param
        )
    return zone


def local_zone(*, param: str) -> ZoneInfo:
    """Return this machine's zone with its name, so that other machines can use it.

    Raises InvalidParameter if the zone has no name.
    """
    zone = _local(param)
    if zone is None:
        told = os.environ.get("TZ") or f"by {LOCALTIME}"
        raise InvalidParameter(
            f"The time zone of this machine ({told}) has no name that others know. Name the one "
            "that is meant, such as 22:00-06:00 Europe/Berlin.",
            param=param,
        )
    return zone


def local_clock(*, param: str) -> tzinfo | None:
    """Return the zone of this machine's clock, None if only the C library can read it.

    Raises InvalidParameter if TZ is neither a zone nor a rule: the C library would take it as UTC.
    """
    return _local(param)


def _local(param: str) -> ZoneInfo | None:
    """Return this machine's zone, None if it has no name; raise InvalidParameter."""
    if (setting := os.environ.get("TZ")) is not None:
        return _of_setting(setting.removeprefix(":"), param)
    if not LOCALTIME.exists():  # a broken link is an error; without the file POSIX says UTC
        return _known(_named_by(LOCALTIME)) or ZoneInfo("UTC")
    return _of_file(LOCALTIME, param)


def _of_setting(setting: str, param: str) -> ZoneInfo | None:
    if not setting:
        return ZoneInfo("UTC")
    if setting.startswith("/"):
        return _of_file(Path(setting), param)
    zone = _known(setting)
    if zone is None and not _RULE.fullmatch(setting):
        raise InvalidParameter(
            f"The variable TZ is {setting!r}, which is no time zone. Set a name like "
            "Europe/Berlin.",
            param=param,
        )
    return zone


def _of_file(path: Path, param: str) -> ZoneInfo | None:
    try:
        found = path.stat()
        return _identified(path, found.st_ino, found.st_mtime_ns)
    except (OSError, ValueError):
        raise InvalidParameter(
            f"The time zone of this machine cannot be read from {path}. Set the variable TZ to a "
            "name like Europe/Berlin.",
            param=param,
        ) from None


@lru_cache(maxsize=4)
def _identified(path: Path, inode: int, modified: int) -> ZoneInfo | None:
    """Return the zone that the file describes, None if no zone agrees with it."""
    content = path.read_bytes()
    shown = ZoneInfo.from_file(io.BytesIO(content))
    same = (zone for zone in _candidates(path) if _has_content(zone, content))
    # the file may be from another year or have another form, so times are compared
    alike = (zone for zone in _candidates(path) if _agree(zone, shown))
    return next(chain(same, alike), None)


def _candidates(path: Path) -> Iterator[ZoneInfo]:
    return (zone for name in _hints(path) if (zone := _known(name)))


def _hints(path: Path) -> Iterator[str]:
    """Yield zone names, the most likely first: of the link, of the machine, then all others."""
    yield _named_by(path)
    if path == LOCALTIME:
        with suppress(OSError, UnicodeDecodeError):
            yield NAME_FILE.read_text().strip()
    yield "UTC"
    # first one name for each group of zones that agree since 1970, then all other names
    table = files("tzdata").joinpath("zoneinfo", "zone1970.tab").read_text(encoding="utf-8")
    yield from (line.split("\t")[2] for line in table.splitlines() if not line.startswith("#"))
    yield from sorted(available_timezones())


def _named_by(path: Path) -> str:
    return str(path.resolve()).partition("zoneinfo/")[2]


def _has_content(zone: ZoneInfo, content: bytes) -> bool:
    tables = (*map(Path, TZPATH), files("tzdata").joinpath("zoneinfo"))
    candidates = (table.joinpath(*zone.key.split("/")) for table in tables)
    return any(file.is_file() and file.read_bytes() == content for file in candidates)


def _agree(one: ZoneInfo, other: ZoneInfo) -> bool:
    return all(
        one.utcoffset(when) == other.utcoffset(when) and one.tzname(when) == other.tzname(when)
        for when in WEEKS
    )


def _known(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
