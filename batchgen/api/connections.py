"""The connections of the HTTP server: uvicorn's, with an end to those that only hold on.

connected ──► HEAD_SECONDS for the head of a request, else closed
answered before the body has arrived ──► LINGER_SECONDS for the client to read that, then closed
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from batchgen.api.no_answer import ABORT

HEAD_SECONDS: Final = 20.0
LINGER_SECONDS: Final = 5.0
MAX_HEAD_BYTES: Final = 32 << 10  # of the request line and all headers


class BoundedProtocol(H11Protocol):
    """One connection, which a client cannot keep open by sending slowly."""

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._close_in(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._keep()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive bytes; only a whole head ends the waiting for one."""
        was_idle = self.timeout_keep_alive_task is not None
        super().data_received(data)  # ends uvicorn's timer of an idle connection
        self._offer_abort()
        if self._is_answering:
            self._keep()
        elif was_idle:
            self._close_in(HEAD_SECONDS)

    def on_response_complete(self) -> None:
        """Give a client that still sends its body a moment to read the answer."""
        super().on_response_complete()  # begins the next request if that has arrived
        self._offer_abort()
        if self.conn.their_state is h11.SEND_BODY and not self._is_answering:
            self._close_in(LINGER_SECONDS)

    def _offer_abort(self) -> None:
        if self._is_answering:
            extensions = cast("dict[str, Any]", self.scope).setdefault("extensions", {})
            extensions[ABORT] = self.transport.abort

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_in(self, seconds: float) -> None:
        self._keep()
        self._closing = self.loop.call_later(seconds, self.transport.close)

    def _keep(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
