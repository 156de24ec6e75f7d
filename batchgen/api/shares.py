"""Places for what is slow, of which one tenant has half at most: it cannot keep others waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter
from fastapi import Request


class Shares:
    """Lets so many go on at a time; others wait, each tenant in a queue of its own.

    async with shares.place(request):
        …
    """

    def __init__(self, places: int) -> None:
        self._share = max(places // 2, 1)
        self._all = CapacityLimiter(places)
        self._tenants: dict[str, CapacityLimiter] = {}

    @asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[None]:
        """Hold a place for the caller of a request that is known."""
        tenant: str = request.state.principal.tenant
        own = self._tenants.setdefault(tenant, CapacityLimiter(self._share))
        async with own, self._all:
            yield
