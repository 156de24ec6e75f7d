"""Formats numbers and times for people."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60, 3600, 86400  # seconds
SHORT_ID = 12  # characters of a job id: its millisecond of birth, unique in practice


def duration(seconds: float | None) -> str:
    """Format a duration in its two largest units: `42s`, `1m 20s`, `2h 03m`, `3d 04h`."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < MINUTE:
        return f"{whole}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m {whole % MINUTE:02d}s"
    if whole < DAY:
        return f"{whole // HOUR}h {whole % HOUR // MINUTE:02d}m"
    return f"{whole // DAY}d {whole % DAY // HOUR:02d}h"


def moment(timestamp: float | None) -> str:
    """Write seconds since the epoch as local date and time, to the second, with a zone."""
    from batchgen.calendar.times import show_time

    return "-" if timestamp is None else show_time(timestamp)


def count(number: int) -> str:
    """Write an integer with thousands separators."""
    return f"{number:,}"


def rate(per_second: float | None, unit: str) -> str:
    """Write a rate with three useful digits: `0.52 rows/s`, `1,234 tok/s`."""
    if per_second is None:
        return f"- {unit}/s"
    digits = 0 if per_second >= 100 else 1 if per_second >= 10 else 2
    return f"{per_second:,.{digits}f} {unit}/s"


def percent(share: float | None) -> str:
    """Write a share in [0, 1] as a whole percentage, rounded down: 100 % means all."""
    return "-" if share is None else f"{int(share * 100 + 1e-9)} %"


def size(n_bytes: int) -> str:
    """Write bytes in binary units: `512 B`, `1.5 MiB`."""
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def short_id(public_id: str) -> str:
    """Shorten a job id for a table; every command takes the short form."""
    return public_id[:SHORT_ID]
