"""Everything of captured decode steps but the capture, which needs a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batchgen.engine.engine import Engine
from batchgen.engine.network.graphs import (
    DecodeGraphs,
    GraphKernels,
    Run,
    graph_sizes,
    padded,
    padded_batch,
)
from batchgen.errors import InvalidParameter
from batchgen_kernels.interface import LayerShape, StepBatch
from batchgen_kernels.layout import PoolLayout
from batchgen_kernels.registry import create_kernels
from batchgen_kernels.triton import attention, cache
from batchgen_kernels.triton.kernels import TritonKernels
from tests.unit.engine.conftest import make_engine, request, run, tokens_of


@pytest.fixture(autouse=True)
def quiet_arithmetic() -> Iterator[None]:
    """Triton's interpreter computes with NumPy, which warns of what a GPU does silently."""
    with np.errstate(all="ignore"):
        yield


def test_sizes_waste_few_rows() -> None:
    assert graph_sizes(1) == [1]
    assert graph_sizes(8) == [1, 2, 4, 8]
    assert graph_sizes(16) == [1, 2, 4, 8, 16]
    assert graph_sizes(30) == [1, 2, 4, 8, 16, 24, 30]


def with_graphs(path: Path, captured: list[Run]) -> Engine:
    """Return an engine whose decode steps are "captured": what is captured runs again."""
    engine = make_engine(path, kernels="triton", device="cpu")

    def capture(run: Run) -> Run:
        captured.append(run)
        run()  # as a capture does, to compile
        return run

    kernels = engine.model._kernels
    assert isinstance(kernels, GraphKernels)
    engine._graphs = DecodeGraphs(
        engine.model.network,
        kernels,
        sizes=[1, 2, 4],
        device=engine.model.device,
        capture=capture,
    )
    return engine


def test_padded_steps_give_the_same_tokens(llama: Path) -> None:
    asked = [request(k, [5 + k, 6, 7, 8], max_tokens=4) for k in range(3)]
    expected = run(make_engine(llama, device="cpu"), *asked)
    captured: list[Run] = []
    engine = with_graphs(llama, captured)
    answers = run(engine, *asked)
    assert len(captured) == 1  # 3 sequences as 4
    for key, answer in answers.items():
        assert tokens_of(answer) == tokens_of(expected[key])


def test_only_steps_that_decode_are_run(llama: Path) -> None:
    engine = with_graphs(llama, [])
    graphs = engine._graphs
    assert graphs is not None
    engine.add(request(0, [5, 6, 7], max_tokens=9))
    assert not graphs.can_run(engine.scheduler.schedule())
    engine = with_graphs(llama, [])
    for key in range(5):
        engine.add(request(key, [5], max_tokens=9))
    assert not graphs.can_run(engine.scheduler.schedule())  # more than are captured


def test_padding_rows_are_sequences_in_the_null_block(llama: Path) -> None:
    engine = make_engine(llama, device="cpu")
    engine.add(request(0, [5, 6], max_tokens=2))
    plan = engine.scheduler.schedule()
    batch = padded_batch(plan, 3)
    assert batch.tables[1:].max() == 0
    assert batch.starts.tolist() == [0, 0, 0]
    assert batch.counts.tolist() == [2, 1, 1]
    assert padded(plan.token_ids, 4).tolist() == [5, 6, 0, 0]


# Leading arguments that a step allocates: a graph has them in memory of its own.
OWN = {"attend": 3, "merge": 4, "write": 0}
SHAPE = LayerShape(query_heads=4, kv_heads=2, key_width=16, value_width=16, scale=0.25)


def launches(kernels: TritonKernels, lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the grid and every argument of each kernel of a decode, addresses for tensors."""
    made: list[object] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def launch(*args: object, **options: object) -> None:
                shown = [x.data_ptr() if isinstance(x, torch.Tensor) else x for x in args]
                made.append((self.name, grid, shown[OWN[self.name] :], options))

            return launch

    for module, name in ((attention, "attend"), (attention, "merge"), (cache, "write")):
        monkeypatch.setattr(module, name, Recorder(name))
    count = len(lengths)
    kernels.plan(
        StepBatch(
            tables=np.arange(count * 64, dtype=np.int32).reshape(count, 64),
            starts=np.array(lengths, dtype=np.int32) - 1,
            counts=np.ones(count, dtype=np.int32),
        )
    )
    kernels.write(0, KEY[:count], KEY[:count])
    kernels.attend(0, QUERY[:count])
    return made


KEY, QUERY = torch.zeros(4, 2, 16), torch.zeros(4, 4, 16)


def test_steps_of_equal_signatures_are_launched_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = PoolLayout(layers=(SHAPE,), block_size=16)
    kernels = create_kernels("triton", torch.zeros(256, layout.elements), layout)
    assert isinstance(kernels, TritonKernels)
    kernels.reserve(sequences=4, blocks=256)
    seen: dict[tuple[object, ...], object] = {}
    for lengths in ([1, 5, 9], [30, 2, 100], [1000, 1, 1], [700, 1, 2], [900, 4], [3, 4]):
        made = launches(kernels, lengths, monkeypatch)
        assert seen.setdefault(kernels.signature, made) == made
    assert len(seen) == 4  # three or two sequences, keys in splits or not


@pytest.mark.parametrize("fields", [{"cuda_graphs": True}, {"kernels": "nothing"}])
def test_what_this_machine_has_not_is_refused_with_a_remedy(
    llama: Path, fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidParameter, match=r"Set \w+ to (auto|false)"):
        make_engine(llama, device="cpu", **fields)
