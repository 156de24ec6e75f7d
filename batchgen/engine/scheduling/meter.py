"""Samples of the KV pool's utilisation; measuring in every step would cost too much."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.engine.scheduling.scheduler import Scheduler

EVERY = 8  # steps from sample to sample


@dataclass(frozen=True, slots=True)
class Reading:
    """Sums over all samples so far; the difference of two readings covers the time between."""

    samples: int = 0
    utilisation: float = 0.0
    saving: float = 0.0


class PoolMeter:
    """Samples the utilisation and the sharing of one scheduler's pool."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.reading = Reading()
        #: Utilisation and sharing saving at the last sample, 0 to 1 each.
        self.last = (0.0, 0.0)
        self._scheduler = scheduler
        self._steps = 0

    def tick(self) -> None:
        """Count a step and sample every `EVERY` steps; call it before ended sequences retire."""
        if self._steps % EVERY == 0:
            self.last = utilisation, saving = measure(self._scheduler)
            now = self.reading
            self.reading = Reading(
                now.samples + 1, now.utilisation + utilisation, now.saving + saving
            )
        self._steps += 1

    def since(self, start: Reading) -> tuple[float, float]:
        """Return the mean utilisation and sharing saving since `start` was read, 0 to 1 each."""
        samples = self.reading.samples - start.samples
        if samples == 0:
            return self.last
        utilisation = (self.reading.utilisation - start.utilisation) / samples
        return utilisation, (self.reading.saving - start.saving) / samples


def measure(scheduler: Scheduler) -> tuple[float, float]:
    """Return the present utilisation and sharing saving of the pool, 0 to 1 each."""
    computed = {
        sequence.table_row: sequence.num_computed
        for group in scheduler.running
        for sequence in group.computing
    }
    return scheduler.tables.utilisation(computed), scheduler.tables.sharing_saving()
