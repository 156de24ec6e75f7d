"""The endpoint engine: the contract of `batchgen.engine.engine.Engine` over HTTP.

encoder thread     encode: a row becomes a request
step thread        admit, abort ─► loop;   step: waits for answers a moment, and returns them
loop thread        the dispatcher: requests, verdicts, probes

It computes nothing: a step is a look at the answers that came. Rows stay here while the endpoint is
away; the worker keeps their shard, or another worker gets it once the lease is released.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.numerics import ENDPOINT
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.endpoints.connection import Connection
from batchgen.engine.config import EngineConfig
from batchgen.errors import EndpointUnavailable
from batchgen.models.endpoint import UNKNOWN_CONTEXT
from batchgen_workers.endpoint.bodies import Question, question_of
from batchgen_workers.endpoint.dispatcher import Dispatcher
from batchgen_workers.endpoint.health import Health
from batchgen_workers.endpoint.waiting_rows import Row

LOOK = 0.02  # seconds that a step waits for an answer

#: A row as it is asked, or the result of a row that cannot be asked.
Encoded: TypeAlias = Row | Generation


class EndpointEngine:
    """Rows answered by the endpoint that the config names."""

    def __init__(self, config: EngineConfig) -> None:
        """Connect, and ask once what is served; an endpoint that is away is waited for later.

        Raises InvalidParameter if the key or the certificates cannot be read.
        """
        assert config.endpoint is not None
        self._config = config
        self._endpoint = config.endpoint.endpoint
        self._answers: queue.SimpleQueue[Generation | BaseException] = queue.SimpleQueue()
        # Keys of the rows that were admitted and not returned.
        self._keys: set[int] = set()
        self._refused: list[Generation] = []
        self._steps = self._prompt_tokens = self._generated = self._cached = 0
        self._busy = 0.0
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self._answers.put(_error_of(context)))
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._connect(config), self._loop).result()

    async def _connect(self, config: EngineConfig) -> None:
        assert config.endpoint is not None
        self._connection = connection = Connection(config.endpoint)
        health = Health(self._endpoint, known_as=self._endpoint.answers_as)
        self._dispatcher = Dispatcher(connection, health, self._answers.put)
        self._dispatcher.failed = self._answers.put
        try:
            await health.ask(connection, canary=health.known_as is None)
        except EndpointUnavailable as error:
            health.failed(error)
            self._dispatcher.check()

    @property
    def info(self) -> EngineInfo:
        """The endpoint, in the words of an engine."""
        return EngineInfo(
            model=self._config.model_name,
            device=ENDPOINT,
            dtype="-",
            kernels=self._server,
            kernels_reason=f"{self._endpoint.served_model} at {self._endpoint.url}",
            block_size=0,
            num_blocks=0,
            max_length=UNKNOWN_CONTEXT,
            max_batch_tokens=0,
            max_num_seqs=self._config.max_num_seqs,
        )

    @property
    def _server(self) -> str:
        return self._dispatcher.health.server or str(self._endpoint.dialect)

    def encode(self, request: GenerationRequest) -> Encoded:
        """Return the row as it is asked, or its error; called on the encoder thread."""
        question = question_of(request, self._endpoint)
        if isinstance(question, Question):
            return Row(request=request, question=question)
        return Generation(key=request.key, error=question)

    def admit(self, encoded: Encoded) -> None:
        """Take an encoded row."""
        self._keys.add(encoded.key)
        if isinstance(encoded, Row):
            self._call(self._dispatcher.put, encoded)
        else:
            self._refused.append(encoded)

    def abort(self, keys: list[int]) -> None:
        """Forget rows; ignore unknown keys."""
        self._keys.difference_update(keys)
        self._call(self._dispatcher.abort, list(keys))

    def has_unfinished(self) -> bool:
        """Return whether a step has something to wait for: rows, or an endpoint that is away."""
        return bool(self._keys) or bool(self._dispatcher.health.waiting_for)

    def has_waiting(self) -> bool:
        """Return False: encoding takes no core from anybody."""
        return False

    def step(self) -> list[Generation]:
        """Wait a moment for answers, and return those that came."""
        began = time.monotonic()
        ended, self._refused = self._refused, []
        if not ended:
            with suppress(queue.Empty):
                ended.append(self._next(LOOK))
        with suppress(queue.Empty):
            while True:
                ended.append(self._next(0.0))
        ended = [generation for generation in ended if generation.key in self._keys]
        for generation in ended:
            self._count(generation)
        self._steps += 1
        if self._dispatcher.running:
            self._busy += time.monotonic() - began
        return ended

    def progress(self) -> dict[int, int]:
        """Return {key: 0} of the rows that the endpoint has: it tells nothing before their end."""
        return dict.fromkeys(self._dispatcher.running_keys, 0)

    def stats(self) -> EngineStats:
        """Return the counters."""
        running = self._dispatcher.running
        return EngineStats(
            steps=self._steps,
            running=running,
            waiting=max(0, len(self._keys) - running),
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated,
            prefix_queries=self._prompt_tokens,
            prefix_hits=self._cached,
            busy_seconds=self._busy,
            concurrency=self._dispatcher.limit.allowed,
            retries=self._dispatcher.retries,
            waiting_for=self._dispatcher.health.waiting_for,
            server=self._server,
        )

    def close(self) -> None:
        """End all requests and the loop; the engine process ends without it."""
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _disconnect(self) -> None:
        await self._dispatcher.close()
        await self._connection.__aexit__(None, None, None)
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    def _call(self, method: Callable[[Any], None], argument: Any) -> None:
        self._loop.call_soon_threadsafe(method, argument)

    def _next(self, timeout: float) -> Generation:
        found = self._answers.get(timeout=timeout) if timeout else self._answers.get_nowait()
        if isinstance(found, BaseException):
            raise found
        return found

    def _count(self, generation: Generation) -> None:
        self._keys.discard(generation.key)
        if usage := generation.usage:
            self._prompt_tokens += usage.prompt_tokens
            self._generated += usage.completion_tokens
            self._cached += usage.cached_tokens


def _error_of(context: dict[str, Any]) -> BaseException:
    """Return the error of a callback of the loop, which ends the process as a failed step does."""
    error = context.get("exception")
    return error if isinstance(error, BaseException) else RuntimeError(str(context["message"]))
