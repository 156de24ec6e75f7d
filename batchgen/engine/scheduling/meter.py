"""How well the KV pool is used over time, by samples: measuring every step would cost as much."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.engine.scheduling.scheduler import Scheduler

EVERY = 8  # steps from sample to sample


@dataclass(frozen=True, slots=True)
class Reading:
    """Sums over all samples so far; the difference of two readings says how it was in between."""

    samples: int = 0
    utilisation: float = 0.0
    saving: float = 0.0


class PoolMeter:
    """Samples utilisation and sharing of the pool of one scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.reading = Reading()
        #: Utilisation and sharing saving at the last sample, 0 to 1 each.
        self.last = (0.0, 0.0)
        self._scheduler = scheduler
        self._steps = 0

    def tick(self) -> None:
        """Count a step, and sample if it is time to; before what ended is retired."""
        if self._steps % EVERY == 0:
            self.last = utilisation, saving = measure(self._scheduler)
            now = self.reading
            self.reading = Reading(
                now.samples + 1, now.utilisation + utilisation, now.saving + saving
            )
        self._steps += 1

    def since(self, start: Reading) -> tuple[float, float]:
        """Return mean utilisation and sharing saving since `start` was read."""
        samples = self.reading.samples - start.samples
        if samples == 0:
            return self.last
        utilisation = (self.reading.utilisation - start.utilisation) / samples
        return utilisation, (self.reading.saving - start.saving) / samples


def measure(scheduler: Scheduler) -> tuple[float, float]:
    """Return utilisation and sharing saving of the pool now."""
    computed = {
        sequence.table_row: sequence.num_computed
        for group in scheduler.running
        for sequence in group.computing
    }
    return scheduler.tables.utilisation(computed), scheduler.tables.sharing_saving()
