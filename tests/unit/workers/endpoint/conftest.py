from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from batchgen.core.dialects import Dialect
from batchgen.core.params import SamplingParams
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.endpoints.config import EndpointConfig
from batchgen.engine.config import EngineConfig
from batchgen.models.endpoint import Endpoint
from batchgen_workers.endpoint import dispatcher
from batchgen_workers.endpoint.engine import EndpointEngine
from tests.support.scripted_endpoint import MODEL, ScriptedEndpoint


class Asking:
    """An engine that asks a scripted endpoint, and what came of its rows."""

    def __init__(self, engine: EndpointEngine) -> None:
        self.engine = engine
        self.ended: dict[int, Generation] = {}

    def put(self, *prompts: str, **params: Any) -> None:
        """Ask rows; their keys go on from those that were asked before."""
        for prompt in prompts:
            self.asked = getattr(self, "asked", 0) + 1
            request = GenerationRequest(
                key=self.asked,
                params=SamplingParams(**params),
                messages=[{"role": "user", "content": prompt}],
            )
            self.engine.admit(self.engine.encode(request))

    def step(self) -> None:
        for generation in self.engine.step():
            assert generation.key not in self.ended, "a row was answered twice"
            self.ended[generation.key] = generation

    def until(self, happened: Callable[[], bool], *, patience: float = 15.0) -> None:
        """Step until something has happened."""
        began = monotonic()
        while not happened():
            assert monotonic() - began < patience, self.engine.stats()
            self.step()

    def finish(self) -> dict[int, Generation]:
        """Step until every row has ended, and return them."""
        self.until(lambda: not self.engine.has_unfinished())
        return self.ended

    def texts(self) -> list[str]:
        """The answers by key; a row that failed has its code."""
        return [
            row.error.code if row.error else row.choices[0].text
            for _, row in sorted(self.ended.items())
        ]


Ask = Callable[..., Asking]


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    """A scripted endpoint that answers every row."""
    with ScriptedEndpoint() as server:
        yield server


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Return a function that makes an engine for an endpoint, with short back-off."""
    monkeypatch.setattr(dispatcher, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(dispatcher, "LONGEST_PAUSE", 0.01)
    made: list[EndpointEngine] = []

    def make(url: str, *, timeout: float = 60.0, most_bytes: int = 1 << 20, **said: Any) -> Asking:
        known = {"url": url, "served_model": MODEL, "answers_as": MODEL, **said}
        endpoint = Endpoint(**known)
        config = EngineConfig(model_path=Path("/none"), model_name="m").at_endpoint(
            EndpointConfig(endpoint=endpoint, timeout=timeout, max_answer_bytes=most_bytes)
        )
        made.append(EndpointEngine(config))
        return Asking(made[-1])

    yield make
    for engine in made:
        engine.close()
    # a request that is ended while it connects leaves its socket to the garbage collector
    made.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def request(
    prompt: str | list[int] | None = None, *, messages: Any = None, **params: Any
) -> GenerationRequest:
    """Return a request with these parameters: a raw prompt, or a chat."""
    if prompt is None and messages is None:
        messages = [{"role": "user", "content": "hi"}]
    return GenerationRequest(
        key=1,
        params=SamplingParams(**params),
        messages=messages,
        prompt=prompt if isinstance(prompt, str) else None,
        prompt_token_ids=prompt if isinstance(prompt, list) else None,
    )


def at(dialect: Dialect) -> Endpoint:
    """Return an endpoint of a dialect."""
    return Endpoint(url="http://127.0.0.1:1/v1", served_model="m", dialect=dialect)
