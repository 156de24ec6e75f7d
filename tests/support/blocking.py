"""Blocking views of objects whose methods are coroutines, so that one test serves both kinds."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal


class Blocking:
    """Calls the methods of an object in an event loop and returns what they return."""

    def __init__(self, subject: Any, portal: BlockingPortal) -> None:
        self._subject = subject
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._subject, name)
        if inspect.iscoroutinefunction(value):
            return lambda *args, **kwargs: self._portal.call(lambda: value(*args, **kwargs))
        if inspect.isasyncgenfunction(value):
            return lambda *args, **kwargs: iter(
                self._portal.call(_collected, value(*args, **kwargs))
            )
        return value if isinstance(value, str) else Blocking(value, self._portal)


async def _collected(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


@contextmanager
def blocking(subject: Any) -> Iterator[Any]:
    """Yield a blocking view of an object that `aclose` closes."""
    with start_blocking_portal() as portal:
        yield Blocking(subject, portal)
        portal.call(subject.aclose)
