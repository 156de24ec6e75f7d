"""A server with OpenAI's API that does what a script says, on the loopback.

It counts what it was asked and what it answered, so a test sees lost and doubled rows from outside.
A row is known by its prompt: the text of its last message, or the raw prompt.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

MODEL = "scripted"
TURNS = 5  # of the event loop, in which what was begun comes to its end
CANARY = "1"  # the prompt that asks whether the endpoint answers at all


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        if "messages" in self.body:
            return str(self.body["messages"][-1]["content"])
        return str(self.body.get("prompt", ""))


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The bytes that the server sends: a whole answer, or less."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    # Close the connection after the headers and so many bytes; None sends all.
    cut_after: int | None = None
    # Send no byte, ever.
    hangs: bool = False
    # Send zeros until the client goes.
    endless: bool = False
    # Seconds that the answer takes.
    takes: float = 0.0


#: Returns the reply to a request, None for the usual answer.
Script: TypeAlias = Callable[[Asked], Reply | None]


def answer(asked: Asked, *, model: str = MODEL, text: str | None = None) -> Reply:
    """Return the usual answer: the prompt, said again."""
    said = f"answer to {asked.prompt}" if text is None else text
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    several = range(asked.body.get("n", 1))
    if asked.path.endswith("/chat/completions"):
        form = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    else:
        form = {"text": said, "finish_reason": "stop"}
    choices = [{"index": index, **form} for index in several]
    return Reply(body={"model": model, "choices": choices, "usage": usage})


def error(status: int, message: str, code: str = "some_code", **headers: str) -> Reply:
    """Return an error in OpenAI's form."""
    body = {"error": {"message": message, "type": "kind", "code": code}}
    return Reply(status=status, body=body, headers=headers)


class ScriptedEndpoint:
    """The server. `script` may be replaced at any time."""

    def __init__(self, script: Script = lambda asked: None, *, port: int = 0) -> None:
        self.script = script
        self.port = port
        self.models: dict[str, int | None] = {MODEL: 4096}
        #: Requests at once above which it refuses with 429; None takes all.
        self.capacity: int | None = None
        #: Seconds that the usual answer takes.
        self.takes = 0.0
        self.tls: ssl.SSLContext | None = None
        self.asked: list[Asked] = []
        #: {prompt: usual answers to it}
        self.answered: Counter[str] = Counter()
        self.held = self.most_held = self.refused = 0
        self._loop = asyncio.new_event_loop()
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/v1"

    @property
    def rows(self) -> list[str]:
        """The prompts that were asked, without canaries."""
        asked = [one.prompt for one in self.asked if one.method == "POST"]
        return [prompt for prompt in asked if prompt != CANARY]

    def start(self) -> None:
        """Listen, at the same port as before."""
        self._run(self._listen())

    def kill(self) -> None:
        """Refuse all connections, and break those that are open."""
        self._run(self._stop())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for _ in range(TURNS):  # a connection that was accepted becomes one of ours
            await asyncio.sleep(0)
        serving, self._serving = self._serving, {}
        for task, writer in serving.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*serving, return_exceptions=True)
        for _ in range(TURNS):  # transports close
            await asyncio.sleep(0)

    def _run(self, work: Any) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving[self._loop.create_task(self._serve(reader, writer))] = writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while (asked := await _read(reader)) is not None:
                    self.asked.append(asked)
                    self.held += 1
                    try:
                        await self._answer(asked, writer)
                    finally:
                        self.held -= 1
        finally:
            writer.transport.abort()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if self.capacity is not None and self.held > self.capacity and asked.method == "POST":
            self.refused += 1
            await _write(writer, error(429, "Too many requests."))
            return
        self.most_held = max(self.most_held, self.held)
        reply = self.script(asked)
        if reply is None:
            reply = self._usual(asked)
            await asyncio.sleep(self.takes)
        await asyncio.sleep(reply.takes)
        if reply.hangs:
            await asyncio.Event().wait()
        await _write(writer, reply)
        if reply.status == 200 and reply.cut_after is None and asked.method == "POST":
            self.answered[asked.prompt] += 1

    def _usual(self, asked: Asked) -> Reply:
        if asked.method == "POST":
            return answer(asked, model=next(iter(self.models)))
        if asked.path == "/v1/models":
            listed = [
                {"id": name, "object": "model", **({"max_model_len": context} if context else {})}
                for name, context in self.models.items()
            ]
            return Reply(body={"object": "list", "data": listed})
        return Reply(status=404, body={"detail": "Not Found"})


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method=method, path=path, headers=headers, body=json.loads(body or b"{}"))


async def _write(writer: asyncio.StreamWriter, reply: Reply) -> None:
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    length = 10**10 if reply.endless else len(body)
    head = [f"HTTP/1.1 {reply.status} Said", f"Content-Length: {length}"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in reply.headers.items()]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    if reply.endless:
        while not writer.transport.is_closing():
            writer.write(bytes(1 << 16))
            await writer.drain()
    writer.write(body if reply.cut_after is None else body[: reply.cut_after])
    await writer.drain()
    if reply.cut_after is not None:
        writer.transport.abort()
