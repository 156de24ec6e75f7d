"""Resident memory and CPU time of processes, from the kernel's own books.

watch = Watch()
watch.follow("worker", pid)
watch.sample(rows_done)                 again and again
watch.growth("worker", after=100_000)
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at one process."""

    # rows of the phase it is part of, done by then
    rows: int
    resident: int  # bytes
    cpu_seconds: float = 0.0  # user and system


@dataclass(slots=True)
class Watch:
    """Looks at named processes; one that has ended keeps the samples it has."""

    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    _pids: dict[str, int] = field(default_factory=dict)

    def follow(self, name: str, pid: int) -> None:
        """Look at a process from now on."""
        self._pids[name] = pid

    def leave(self, name: str) -> None:
        """Look at it no more."""
        del self._pids[name]

    def sample(self, rows: int, *names: str) -> None:
        """Look at the processes named, or at all."""
        for name in names or tuple(self._pids):
            if (sample := self.look(name, rows)) is not None:
                self.add(name, sample)

    def look(self, name: str, rows: int) -> Sample | None:
        """Look at a process without keeping what is seen; None where it has ended."""
        found = _look(self._pids[name])
        return found and Sample(rows=rows, resident=found[0], cpu_seconds=found[1])

    def add(self, name: str, sample: Sample) -> None:
        """Keep a look, under whatever name."""
        self.samples[name].append(sample)

    def cpu_seconds(self, name: str) -> float:
        """Return what a process has computed from the first look to the last."""
        looks = self.samples[name]
        return looks[-1].cpu_seconds - looks[0].cpu_seconds if looks else 0.0

    def peak(self, name: str) -> int:
        """Return the most memory seen."""
        return max((sample.resident for sample in self.samples[name]), default=0)

    def growth(self, name: str, *, after: int) -> float | None:
        """Return by which share memory peaked above its peak until twice `after` rows.

        None where the process did not get that far.
        """
        early = [each.resident for each in self.samples[name] if after <= each.rows <= 2 * after]
        late = [each.resident for each in self.samples[name] if each.rows > 2 * after]
        return max(late) / max(early) - 1 if early and late else None


def _look(pid: int) -> tuple[int, float] | None:
    """Return resident bytes and CPU seconds, None where the process has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        pages = int((folder / "statm").read_text(encoding="utf-8").split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    user, system = int(fields[11]), int(fields[12])
    return (pages * PAGE, (user + system) * TICK) if pages else None
