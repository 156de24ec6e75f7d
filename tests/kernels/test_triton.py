"""The Triton kernels against the reference, on pools full of NaN.

Without a GPU they run under Triton's interpreter; `test_attention.py` has the rest of the contract.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from batchgen_kernels.interface import LayerShape, StepBatch
from batchgen_kernels.layout import PoolLayout
from batchgen_kernels.reference import ReferenceKernels
from batchgen_kernels.registry import create_kernels
from batchgen_kernels.triton import tiling
from batchgen_kernels.triton.tiling import choose_splits
from tests.support.paged import Simulation

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
WIDTHS = [(64, 64), (80, 80), (96, 96), (128, 128), (256, 256), (96, 64)]
GROUPS = (1, 2, 3, 4, 7, 8, 16)
PAGES = (16, 32, 64)
PLAIN = LayerShape(query_heads=6, kv_heads=2, key_width=8, value_width=8, scale=8**-0.5)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the matrix."""

    shape: LayerShape
    page: int
    dtype: torch.dtype

    def __str__(self) -> str:
        shape = self.shape
        options = [
            f"{shape.key_width}x{shape.value_width}",
            f"group{shape.group}",
            f"page{self.page}",
            f"window{shape.window}" if shape.window else "",
            "softcap" if shape.softcap else "",
            "sinks" if shape.sinks is not None else "",
        ]
        return "-".join([str(self.dtype).removeprefix("torch."), *filter(None, options)])


def cases() -> list[Case]:
    """Return every width in every type; groups, pages and options go round beside them."""
    made: list[Case] = []
    for widths in WIDTHS:
        for dtype in TOLERANCE:
            i = len(made)
            heads = 1 + i % 2
            group = GROUPS[i % len(GROUPS)]
            shape = LayerShape(
                query_heads=heads * group,
                kv_heads=heads,
                key_width=widths[0],
                value_width=widths[1],
                scale=widths[0] ** -0.5,
                window=(None, 5, 20)[(i + i // 3) % 3],
                softcap=(None, 2.0)[i // 2 % 2],
                sinks=torch.linspace(-1, 2, heads * group) if i % 4 == 1 else None,
            )
            page = PAGES[(i + i // 6) % 3]
            made.append(Case(shape=shape, page=page, dtype=dtype))
    return made


class Pair:
    """The Triton kernels and the reference, each over a pool of its own, fed alike."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.layout = PoolLayout(layers=(case.shape, case.shape), block_size=case.page)
        shape = (12, self.layout.elements)
        self.pools = [torch.full(shape, math.nan, dtype=case.dtype, device=DEVICE) for _ in "ab"]
        self.kernels = (
            create_kernels("triton", self.pools[0], self.layout),
            create_kernels("reference", self.pools[1], self.layout),
        )
        self.tables = np.array([[7, 3, 9, 11], [5, 1, 2, 4]], dtype=np.int32)
        self.lengths = [0, 0]
        self.generator = torch.Generator().manual_seed(0)

    def random(self, *shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=self.generator)
        return drawn.to(DEVICE, self.case.dtype)

    def step(self, *counts: int) -> float:
        """Give each sequence so many tokens; return the largest difference of the outputs."""
        rows = [i for i, count in enumerate(counts) if count]
        batch = StepBatch(
            tables=self.tables[rows],
            starts=np.array([self.lengths[i] for i in rows], dtype=np.int32),
            counts=np.array([counts[i] for i in rows], dtype=np.int32),
        )
        self.lengths = [a + b for a, b in zip(self.lengths, counts, strict=True)]
        shape, layer, total = self.case.shape, 1, sum(counts)
        query = self.random(total, shape.query_heads, shape.key_width)
        key = self.random(total, shape.kv_heads, shape.key_width)
        value = self.random(total, shape.kv_heads, shape.value_width)
        outs = []
        for kernels in self.kernels:
            kernels.plan(batch)
            kernels.write(layer, key, value)
            outs.append(kernels.attend(layer, query))
        assert outs[0].dtype == self.case.dtype
        return float((outs[0].float() - outs[1].float()).abs().max())

    def same_pools(self) -> bool:
        """Return whether the same slots of both pools hold the same, NaN where nothing is."""
        ours, theirs = self.pools
        return torch.equal(ours.isnan(), theirs.isnan()) and torch.equal(
            ours.nan_to_num(), theirs.nan_to_num()
        )


@pytest.mark.parametrize("case", cases(), ids=str)
def test_triton_computes_what_the_reference_does(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefill; a chunk beside a decode; decodes, with the keys in splits."""
    monkeypatch.setattr(tiling, "SPLIT_SLOTS", 16)
    pair = Pair(case)
    tolerance = TOLERANCE[case.dtype]
    assert pair.step(21, 0) < tolerance
    assert pair.step(1, 13) < tolerance
    assert pair.step(1, 1) < tolerance
    assert pair.same_pools()


@pytest.mark.parametrize("shape", [PLAIN, replace(PLAIN, window=600, softcap=3.0)])
def test_splits_of_a_long_sequence_are_merged(shape: LayerShape) -> None:
    shape = replace(shape, sinks=torch.linspace(-1, 2, 6))
    simulation = Simulation("triton", [shape], block_size=16)
    a, b = simulation.add(), simulation.add()
    simulation.step((a, 700), check=False)
    assert simulation.step((a, 1), (b, 1)) < 1e-5
    assert simulation.kernels._launches[0].spec.splits == 2  # type: ignore[attr-defined]


def test_sequences_that_share_blocks() -> None:
    simulation = Simulation("triton", [PLAIN])
    first = simulation.add()
    simulation.step((first, 18), check=False)
    rows = [first, simulation.fork(first), simulation.fork(first)]
    for _ in range(3):
        assert simulation.step(*((row, 1) for row in rows)) < 1e-5
    assert len({tuple(simulation.tables[row][:4]) for row in rows}) == 1


def test_the_matrix_has_every_value_of_every_option() -> None:
    made = cases()
    assert {case.shape.group for case in made} == set(GROUPS)
    assert {(case.page, case.dtype) for case in made} >= {
        (page, dtype) for page in PAGES for dtype in TOLERANCE
    }
    for option in ("window", "softcap", "sinks"):
        with_it = {case.dtype for case in made if getattr(case.shape, option) is not None}
        assert with_it == set(TOLERANCE)


def test_auto_takes_no_triton_off_a_gpu() -> None:
    layout = PoolLayout(layers=(PLAIN,), block_size=16)
    pool = torch.zeros(2, layout.elements, dtype=torch.bfloat16)
    assert isinstance(create_kernels("auto", pool, layout), ReferenceKernels)


def test_without_a_gpu_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchgen_kernels.triton.kernels.interpreted", lambda: False)
    layout = PoolLayout(layers=(PLAIN,), block_size=16)
    with pytest.raises(ValueError, match="run on a GPU, and this pool is on cpu"):
        create_kernels("triton", torch.zeros(2, layout.elements), layout)


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        (PLAIN, torch.float64, "float64"),
        (replace(PLAIN, key_width=512), torch.float16, "layer 1 has 512 and 8"),
        (replace(PLAIN, query_heads=34), torch.float16, "groups of up to 16"),
    ],
)
def test_what_triton_does_not_serve_is_refused(
    shape: LayerShape, dtype: torch.dtype, reason: str
) -> None:
    layout = PoolLayout(layers=(PLAIN, shape), block_size=16)
    with pytest.raises(ValueError, match=reason):
        create_kernels("triton", torch.zeros(2, layout.elements, dtype=dtype), layout)


def test_without_triton_there_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchgen_kernels.registry.find_spec", lambda _: None)
    layout = PoolLayout(layers=(PLAIN,), block_size=16)
    with pytest.raises(ValueError, match="not installed"):
        create_kernels("triton", torch.zeros(2, layout.elements), layout)


def test_keys_are_split_where_programs_are_few_and_keys_many() -> None:
    assert choose_splits(programs=8, longest=100_000, processors=128) == 32
    assert choose_splits(programs=20, longest=100_000, processors=128) == 8
    assert choose_splits(programs=8, longest=1200, processors=128) == 4
    assert choose_splits(programs=200, longest=100_000, processors=128) == 1
    assert choose_splits(programs=8, longest=200, processors=128) == 1


def test_every_block_offset_is_computed_in_64_bits() -> None:
    """A pool of more than 2³¹ elements, of which little more than one block is ever touched."""
    shape = replace(PLAIN, key_width=16, value_width=16)
    layout = PoolLayout(layers=(shape,) * 64, block_size=64)
    blocks = 2**31 // layout.elements + 2
    pool = torch.empty(blocks, layout.elements, dtype=torch.float16, device=DEVICE)
    kernels = create_kernels("triton", pool, layout)
    one = np.ones(1, dtype=np.int32)
    table = np.array([[blocks - 1]], dtype=np.int32)
    kernels.plan(StepBatch(tables=table, starts=0 * one, counts=2 * one))
    key = torch.ones(2, 2, 16, dtype=torch.float16, device=DEVICE)
    kernels.write(63, key, 3 * key)
    assert layout.views(pool)[63][1][blocks - 1, :, :2].eq(3).all()
    out = kernels.attend(63, torch.ones(2, 6, 16, dtype=torch.float16, device=DEVICE))
    assert out.eq(3).all()
    kernels.copy([(blocks - 1, blocks - 2)])
    assert layout.views(pool)[63][1][blocks - 2, :, :2].eq(3).all()
