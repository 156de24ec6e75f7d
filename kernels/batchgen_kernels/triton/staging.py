"""Sends index arrays to the device, in one asynchronous copy per step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ALIGNMENT = 4  # int32 elements: GPUs load 16 aligned bytes at once
SMALLEST = 1024  # int32 elements of the first buffer


@dataclass(slots=True, kw_only=True, eq=False)
class Page:
    """Host memory that the device copies from."""

    # Pinned int32 [n] on CUDA.
    memory: Tensor
    # Complete after the last copy out of `memory`; None if copies are synchronous.
    copied: torch.cuda.Event | None


class Staging:
    """Sends int32 arrays to one device buffer, whose address changes only if it must grow.

    host page A ──►╮                      written while the copy from B may still be queued
                   ├──► device buffer     overwritten in stream order: after the step that
    host page B ──►╯                      still reads it
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pages: list[Page] = []  # two; the first is written next
        self.buffer = torch.empty(0, dtype=torch.int32, device=device)
        self.reserve(SMALLEST)

    def reserve(self, elements: int) -> None:
        """Allocate `elements` int32 elements, if the buffer has fewer; it moves if it grows.

        Each array takes its size rounded up to a multiple of four.
        """
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

        The address of each depends only on the sizes of the arrays before it.
        """
        ends = np.cumsum([-(-array.size // ALIGNMENT) * ALIGNMENT for array in arrays]).tolist()
        if ends[-1] > len(self.buffer):
            self.reserve(2 * ends[-1])
        page = self._pages[0]
        self._pages.reverse()
        if page.copied is not None:
            page.copied.synchronize()  # nearly always complete
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
