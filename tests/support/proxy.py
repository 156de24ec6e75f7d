"""A TCP proxy with toxics: what a network does to a connection, on demand.

    with Proxy(("127.0.0.1", 5432)) as proxy:      connect to proxy.port
        proxy.latency = 2.0                        every chunk waits
        proxy.bytes_per_second = 1000              and trickles
        proxy.cut()                                connections are reset, new ones refused …
        proxy.heal()                               … until now
        proxy.freeze()                             nothing moves, nothing ends
        proxy.abandon()                            half open: so it stays for the present ones
        proxy.on_bytes(b"COMMIT\\0", Drop.REPLY)    the request arrives, its answer never does

A server on a unix socket is a target too: Proxy("/run/x/.s.PGSQL.5432").
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from enum import Enum
from typing import Self

CHUNK = 65536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close sends RST


class Drop(Enum):
    """The fate of a connection on which the awaited bytes have come."""

    REPLY = "reply"  #: They reach the server; the connection dies before it can answer.
    REQUEST = "request"  #: The connection dies before they reach the server.


class Proxy:
    """Passes bytes between its clients and one server; any thread may set a toxic."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        #: Seconds each chunk waits before it goes on, in both directions.
        self.latency = 0.0
        #: How fast each direction of each connection may be; None is as fast as it goes.
        self.bytes_per_second: float | None = None
        #: Connections that ended because of `on_bytes`.
        self.dropped = 0
        self._waited_for: tuple[bytes, Drop] | None = None
        self._moving = threading.Event()
        self._moving.set()
        self._is_cut = False
        self._connections: set[tuple[socket.socket, socket.socket]] = set()
        self._abandoned: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._moving.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._reset_all()

    def cut(self) -> None:
        """Reset every connection and accept none."""
        self._is_cut = True
        self._reset_all()

    def reset(self) -> None:
        """Reset every connection once."""
        self._reset_all()

    def freeze(self) -> None:
        """Let nothing through and end nothing: the other side is a host that lost its power."""
        self._moving.clear()

    def abandon(self) -> None:
        """Swallow whatever the present connections send, for ever; new ones are well.

        The other host lost its power and is back: nobody there knows of these connections.
        """
        with self._lock:
            self._abandoned |= self._connections

    def heal(self) -> None:
        """Be a good network again. What was frozen goes on."""
        self.latency, self.bytes_per_second, self._waited_for = 0.0, None, None
        self._is_cut = False
        self._moving.set()

    def on_bytes(self, wanted: bytes, drop: Drop) -> None:
        """End the next connection on which a client sends these bytes, once."""
        self._waited_for = (wanted, drop)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                _reset(client)
                continue
            pair = (client, server)
            with self._lock:
                self._connections.add(pair)
            for source, sink in (pair, pair[::-1]):
                threading.Thread(
                    target=self._pump, args=(pair, source, sink), name="proxy-pump", daemon=True
                ).start()

    def _connect(self) -> socket.socket:
        if self._is_cut:
            raise ConnectionRefusedError
        if isinstance(self._target, str):
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            return server
        return socket.create_connection(self._target)

    def _pump(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket
    ) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                self._delay(len(chunk))
                if pair in self._abandoned:
                    continue
                drop = self._drop_for(chunk) if source is pair[0] else None
                if drop is Drop.REQUEST:
                    break
                if drop is Drop.REPLY:
                    _reset(source)  # first, so that the answer finds nobody
                    sink.sendall(chunk)
                    return  # the other pump ends the rest once the answer is here
                sink.sendall(chunk)
        self._forget(pair)

    def _delay(self, size: int) -> None:
        if self.latency:
            time.sleep(self.latency)
        if self.bytes_per_second:
            time.sleep(size / self.bytes_per_second)
        self._moving.wait()

    def _drop_for(self, chunk: bytes) -> Drop | None:
        with self._lock:
            if self._waited_for is None or self._waited_for[0] not in chunk:
                return None
            drop, self._waited_for = self._waited_for[1], None
            self.dropped += 1
        return drop

    def _reset_all(self) -> None:
        with self._lock:
            pairs, self._connections = list(self._connections), set()
        for pair in pairs:
            for end in pair:
                _reset(end)

    def _forget(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._connections.discard(pair)
        for end in pair:
            _reset(end)


def _reset(end: socket.socket) -> None:
    """End a connection at once, and wake whoever reads from it."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
