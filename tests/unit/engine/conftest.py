"""Tiny models, built once per test process, and engines over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.params import SamplingParams
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.engine.engine import Engine
from batchgen.engine.network.model import CausalModel
from tests.support.tiny_models import tiny_model

Models = Callable[[str], Path]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Return the folder of a tiny model of a family."""
    built: dict[str, Path] = {}

    def build(family: str) -> Path:
        if family not in built:
            built[family] = tiny_model(tmp_path_factory.mktemp(family), family)
        return built[family]

    return build


@pytest.fixture
def llama(models: Models) -> Path:
    return models("llama")


def config_of(path: Path, *, blocks: int | None = None, **fields: Any) -> EngineConfig:
    """Return the config of a small engine; `blocks` is the number of usable blocks."""
    values = {"block_size": 4, "max_batch_tokens": 64, "max_num_seqs": 16, "threads": 1, **fields}
    config = EngineConfig(model_path=path, model_name="tiny", **values)
    if blocks is None:
        return config
    elements = CausalModel.load(config).layout.elements
    return replace(config, kv_memory=str(4 * elements * (blocks + 1)))


def make_engine(path: Path, *, blocks: int | None = None, **fields: Any) -> Engine:
    return Engine(config_of(path, blocks=blocks, **fields))


def hurried(engine: Engine) -> Engine:
    """Let `engine` admit whatever fits now, so that it must preempt."""
    engine.scheduler.admission.looks_ahead = False
    return engine


def request(key: int, prompt: str | list[int], **params: Any) -> GenerationRequest:
    """Return a request for a raw prompt, greedy and with token ids unless said otherwise."""
    sampling = SamplingParams(**{"temperature": 0.0, "return_token_ids": True, **params})
    if isinstance(prompt, str):
        return GenerationRequest(key=key, prompt=prompt, params=sampling)
    return GenerationRequest(key=key, prompt_token_ids=prompt, params=sampling)


def run(engine: Engine, *requests: GenerationRequest) -> dict[int, Generation]:
    """Compute requests to their end; check on the way that nothing is lost or said twice."""
    for one in requests:
        engine.add(one)
    ended: dict[int, Generation] = {}
    while engine.has_unfinished():
        for generation in engine.step():
            assert generation.key not in ended
            ended[generation.key] = generation
        engine.scheduler.check_integrity()
    assert engine.tables.pool.num_used == 0
    return ended


def tokens_of(generation: Generation) -> list[int]:
    assert generation.error is None, generation.error
    tokens = generation.choices[0].tokens
    assert tokens is not None
    return tokens
