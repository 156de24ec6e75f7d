"""Index arrays on their way to the device: one copy a step, and nobody waits for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ALIGNMENT = 4  # int32 elements: what a GPU loads at once starts at a multiple of 16 bytes
SMALLEST = 1024  # int32 elements


@dataclass(slots=True, kw_only=True, eq=False)
class Page:
    """Host memory that the device copies from."""

    # Pinned int32 [n] on CUDA.
    memory: Tensor
    # Passed once the last copy out of `memory` ran; None where copies are done when they return.
    copied: torch.cuda.Event | None


class Staging:
    """Sends int32 arrays to one device buffer, whose address stays until it has to grow.

    host page A ──►╮                      written while the copy out of B may still be queued
                   ├──► device buffer     overwritten in stream order: after the step that
    host page B ──►╯                      still reads it
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pages: list[Page] = []  # two; the first is written next
        self.buffer = torch.empty(0, dtype=torch.int32, device=device)
        self.reserve(SMALLEST)

    def reserve(self, elements: int) -> None:
        """Make room for arrays of so many int32 elements in all, each rounded up to a multiple
        of four; the buffer moves if it has to grow."""
        if elements > len(self.buffer):
            pinned = self._device.type == "cuda"
            self.buffer = torch.empty(elements, dtype=torch.int32, device=self._device)
            self._pages = [
                Page(
                    memory=torch.empty(elements, dtype=torch.int32, pin_memory=pinned),
                    copied=_event() if pinned else None,
                )
                for _ in range(2)
            ]

    def send(self, arrays: list[npt.NDArray[np.int32]]) -> list[Tensor]:
        """Return flat views of the device buffer that will hold `arrays`, in stream order.

        Where each lies depends on the sizes of those before it, on nothing else.
        """
        ends = np.cumsum([-(-array.size // ALIGNMENT) * ALIGNMENT for array in arrays]).tolist()
        if ends[-1] > len(self.buffer):
            self.reserve(2 * ends[-1])
        page = self._pages[0]
        self._pages.reverse()
        if page.copied is not None:
            page.copied.synchronize()  # passed long ago, but for the very first steps
        places = [slice(a, a + array.size) for a, array in zip([0, *ends], arrays, strict=False)]
        host = page.memory.numpy()
        for place, array in zip(places, arrays, strict=True):
            host[place] = array.ravel()
        self.buffer[: ends[-1]].copy_(page.memory[: ends[-1]], non_blocking=True)
        if page.copied is not None:
            page.copied.record()
        return [self.buffer[place] for place in places]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]
