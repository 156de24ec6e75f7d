"""Engines before paging: one contiguous piece of memory for each request, kept to its end.

    reserved when the request starts   [ prompt ][ room for the answer ……………………… ]
    maximum        up to the context
    power of two   the true length of the answer, rounded up to a power of two
    oracle         the true length of the answer: no engine knows it

A piece comes from a buddy allocator, which the paper assumes of the systems it compares with: its
size is a power of two, cut out of a larger one and merged with its other half when both are free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.memory_requests import CONTEXT, Request

POLICIES: dict[str, Callable[[Request], int]] = {
    "maximum": lambda request: CONTEXT,
    "power of two": lambda request: min(CONTEXT, request.prompt + power_of_two(request.answer)),
    "oracle": lambda request: request.prompt + request.answer,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """The use of memory while requests waited for it, as means over the steps."""

    # Filled slots over slots reserved.
    of_reserved: float
    # Filled slots over all slots there are.
    of_all: float
    # Sequences that ran at once.
    running: float


class Mean:
    """The mean use over the steps in which it is measured.

    That is while memory is what limits: after a quarter of the requests has ended, so that not all
    are young as at the start, and as long as another one waits.
    """

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._samples = 0
        self._of_reserved = self._of_all = self._running = 0.0

    def counts(self, *, ended: int, waiting: int) -> bool:
        """Return whether the present step is measured."""
        return waiting > 0 and 4 * ended >= self._requests

    def add(self, *, of_reserved: float, of_all: float, running: int) -> None:
        """Take in one step."""
        self._samples += 1
        self._of_reserved += of_reserved
        self._of_all += of_all
        self._running += running

    def use(self) -> Use:
        """Return the means."""
        assert self._samples, "too few requests: none waited after the first quarter had ended"
        return Use(
            of_reserved=self._of_reserved / self._samples,
            of_all=self._of_all / self._samples,
            running=self._running / self._samples,
        )


class Buddies:
    """A buddy allocator over `slots` slots, which are first cut into powers of two."""

    def __init__(self, slots: int) -> None:
        self._free: dict[int, set[int]] = {1 << order: set() for order in range(slots.bit_length())}
        at = 0
        for size in reversed(self._free):
            if slots & size:
                self._free[size].add(at)
                at += size

    def allocate(self, slots: int) -> tuple[int, int] | None:
        """Return the (start, size) of a piece of at least `slots` slots, None if none is free."""
        wanted = power_of_two(slots)
        size = next((s for s, free in self._free.items() if s >= wanted and free), None)
        if size is None:
            return None
        start = min(self._free[size])
        self._free[size].remove(start)
        while size > wanted:
            size //= 2
            self._free[size].add(start + size)
        return start, size

    def free(self, start: int, size: int) -> None:
        """Take a piece back, merged with its other half as often as that is free."""
        while start ^ size in self._free.get(size, ()):
            self._free[size].remove(start ^ size)
            start, size = min(start, start ^ size), 2 * size
        self._free[size].add(start)


@dataclass(slots=True, kw_only=True)
class Running:
    """A request that has a piece of memory."""

    request: Request
    reserved: int
    piece: tuple[int, int]
    # Tokens with keys and values.
    filled: int


def replay(requests: list[Request], policy: str, *, slots: int, max_num_seqs: int) -> Use:
    """Serve `requests` in order, as many at once as find a piece, one token a step."""
    memory, reserve = Buddies(slots), POLICIES[policy]
    waiting, running = deque(requests), list[Running]()
    mean, ended = Mean(len(requests)), 0
    while waiting or running:
        while waiting and len(running) < max_num_seqs:
            reserved = reserve(waiting[0])
            piece = memory.allocate(reserved)
            if piece is None:
                break
            request = waiting.popleft()
            running.append(
                Running(request=request, reserved=reserved, piece=piece, filled=request.prompt)
            )
        if mean.counts(ended=ended, waiting=len(waiting)):
            filled = sum(one.filled for one in running)
            mean.add(
                of_reserved=filled / sum(one.reserved for one in running),
                of_all=filled / slots,
                running=len(running),
            )
        going = []
        for one in running:
            one.filled += 1
            if one.filled < one.request.prompt + one.request.answer:
                going.append(one)
            else:
                memory.free(*one.piece)
                ended += 1
        running = going
    return mean.use()


def power_of_two(number: int) -> int:
    """Return the least power of two that is not below `number`, which is at least 1."""
    return 1 << (number - 1).bit_length()
