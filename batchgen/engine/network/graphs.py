"""Decode steps as captured CUDA graphs: one launch replaces hundreds.

    5 sequences, a token each ─► padded to 8 ─► kernels planned ─► their signature
                                                                    known: replay the graph
                                                                    new:   run, capture, replay

A graph contains fixed addresses and grids; data that changes from step to step lies in buffers that
do not move. Padding rows are sequences of one token in the null block. No GPU has run this yet:
everything but the capture itself is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from batchgen.engine.network.attention import compute
from batchgen.engine.scheduling.plan import Ints, StepPlan
from batchgen.errors import InvalidParameter
from batchgen_kernels.interface import AttentionKernels, StepBatch

STEP = 8  # difference of captured sizes from 2 * STEP on

Run = Callable[[], Tensor]


@runtime_checkable
class GraphKernels(AttentionKernels, Protocol):
    """Kernels whose `signature` says which steps can share one graph."""

    @property
    def signature(self) -> tuple[object, ...]:
        """All values of the step planned last that a captured graph would contain."""
        ...

    def reserve(self, *, sequences: int, blocks: int) -> None:
        """Allocate buffers for decodes of so many sequences and blocks, so that none moves."""
        ...


class DecodeGraphs:
    """Runs the steps in which every sequence has one new token."""

    def __init__(
        self,
        network: nn.Module,
        kernels: GraphKernels,
        *,
        sizes: list[int],
        device: torch.device,
        capture: Callable[[Run], Run] | None = None,
    ) -> None:
        """Serve steps of up to `sizes[-1]` sequences; `sizes` are ascending.

        `capture` runs a function once and returns a function that repeats it on the same memory;
        tests without a GPU pass their own.
        """
        self._network = network
        self._kernels = kernels
        self._sizes = np.array(sizes)
        self._capture = capture or capture_cuda
        self._graphs: dict[tuple[object, ...], Run] = {}  # {signature of the launches: graph}
        self._token_ids, self._positions = torch.zeros(
            2, sizes[-1], dtype=torch.int64, device=device
        )
        self._rows = torch.arange(sizes[-1], device=device)

    def can_run(self, plan: StepPlan) -> bool:
        """Return whether each sequence of `plan` has one token, and `sizes` has room for all."""
        tokens = len(plan.token_ids)
        return 0 < tokens == len(plan.counts) <= int(self._sizes[-1])

    def run(self, plan: StepPlan) -> Tensor:
        """Compute the tokens of `plan`; return float32 logits [N, V] of its logit rows.

        Raise InvalidParameter if the model cannot be captured.
        """
        size = int(self._sizes[np.searchsorted(self._sizes, len(plan.counts))])
        with torch.inference_mode():
            self._kernels.copy(plan.copies)
            self._kernels.plan(padded_batch(plan, size))
            self._token_ids[:size].copy_(torch.from_numpy(padded(plan.token_ids, size)))
            self._positions[:size].copy_(torch.from_numpy(padded(plan.positions, size)))
            logits = self._graph(size)()
            return logits[torch.from_numpy(plan.logit_rows).to(logits.device)]

    def _graph(self, size: int) -> Run:
        inputs = (self._token_ids[:size], self._positions[:size], self._rows[:size])
        key = (size, *self._kernels.signature)
        if key not in self._graphs:
            self._graphs[key] = self._capture(lambda: compute(self._network, *inputs))
        return self._graphs[key]


def graph_sizes(most: int) -> list[int]:
    """Return the numbers of sequences that graphs are captured for: 1, 2, 4, 8, 16, 24, … `most`.

    So at most half of a small step is padding, and fewer than eight rows of a large step.
    """
    small = [size for size in (1, 2, 4, 8) if size < most]
    return [*small, *range(2 * STEP, most, STEP), most]


def padded(array: Ints, size: int) -> Ints:
    """Return `array` followed by zeros, `size` elements in all."""
    return np.pad(array, (0, size - len(array)))


def padded_batch(plan: StepPlan, size: int) -> StepBatch:
    """Return the step of `plan`, padded to `size` with one-token sequences in the null block."""
    missing = size - len(plan.counts)
    return StepBatch(
        tables=np.pad(plan.tables, ((0, missing), (0, 0))),
        starts=np.pad(plan.starts, (0, missing)),
        counts=np.pad(plan.counts, (0, missing), constant_values=1),
    )


def capture_cuda(run: Run) -> Run:
    """Run once, so that everything is compiled and allocated; then capture and return a replay."""
    try:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = run()
    except RuntimeError as error:
        message = f"This model cannot be captured ({error}). Set cuda_graphs to false."
        raise InvalidParameter(message, param="cuda_graphs") from error

    def replay() -> Tensor:
        graph.replay()
        return logits

    return replay
