"""Windows: the hours of the day, in one time zone, in which a job may run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import TYPE_CHECKING

from batchgen.calendar.zones import local_zone, zone_named
from batchgen.errors import InvalidParameter

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MINUTE = 60.0  # seconds
DAY = 24 * 60  # minutes
#: The search for the next change ends here: a change of the clock may skip the window for a day.
HORIZON = 4 * DAY  # minutes

_FORM = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})(?:\s+(\S+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The hours of every day from `start` to `end`, by the local clock of `zone`.

    22:00-06:00 includes midnight. On a day that a change of the clock makes longer or shorter, the
    window follows the clock: 02:00-03:00 may last two hours or none.
    """

    # minutes after midnight, [start, end); end is at most 1440
    start: int
    end: int
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read '22:00-06:00 Europe/Berlin'; without a zone, this machine's zone is used.

        Raises InvalidParameter, also if that zone has no name, because other machines could not
        read the window.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise _refused(f"{text!r} is not a window. Write 22:00-06:00 Europe/Berlin.")
        start, end = _minutes(text, *found.group(1, 2)), _minutes(text, *found.group(3, 4))
        if start % DAY == end:
            raise _refused(f"The window {text!r} is empty; 00:00-24:00 is the whole day.")
        return cls(start=start % DAY, end=end, zone=_zone(found.group(5)))

    def __str__(self) -> str:
        return f"{_clock(self.start)}-{_clock(self.end)} {self.zone.key}"

    def is_open(self, ts: float) -> bool:
        """Return whether the window is open at `ts` (seconds since the epoch)."""
        local = datetime.fromtimestamp(ts, self.zone)
        minute = local.hour * 60 + local.minute
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def next_open(self, ts: float) -> float:
        """Return `ts` if the window is open, else the time it opens next."""
        return ts if self.is_open(ts) else self._next_change(ts)

    def seconds_left(self, ts: float) -> float:
        """Return how many seconds the window stays open: 0 if closed, inf if it never closes."""
        return self._next_change(ts) - ts if self.is_open(ts) else 0.0

    def _next_change(self, ts: float) -> float:
        # Try each minute: on days of a change of the clock, arithmetic on local times is wrong.
        now, minute = self.is_open(ts), math.floor(ts / MINUTE)
        for later in range(minute + 1, minute + HORIZON):
            if self.is_open(later * MINUTE) != now:
                return later * MINUTE
        return math.inf


def _zone(name: str | None) -> ZoneInfo:
    return local_zone(param="window") if name is None else zone_named(name, param="window")


def _minutes(text: str, hours: str, minutes: str) -> int:
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > DAY:
        raise _refused(f"{text!r} names an hour that no clock shows.")
    return total


def _clock(minutes: int) -> str:
    return "24:00" if minutes == DAY else f"{time(minutes // 60, minutes % 60):%H:%M}"


def _refused(message: str) -> InvalidParameter:
    return InvalidParameter(message, param="window")
