"""The interface of all kernels, and the data that they get.

A step, as the engine runs it:

    kernels.copy(pairs)                       # copy-on-write, before anything is written
    kernels.plan(batch)                       # once per step: every index tensor
    for layer in layers:                      # from inside the model's forward
        kernels.write(layer, key, value)
        out = kernels.attend(layer, query)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerShape:
    """The attention of one layer, as the probe recorded it."""

    query_heads: int
    kv_heads: int
    # Elements of one key head and one value head.
    key_width: int
    value_width: int
    # Scores are query · key · scale.
    scale: float
    # Keys that a query sees, including its own; None: all up to its own.
    window: int | None = None
    # Scores become softcap · tanh(scores / softcap).
    softcap: float | None = None
    # One logit per query head, [query_heads]: part of the softmax, adds nothing to the output.
    sinks: Tensor | None = None

    @property
    def group(self) -> int:
        """The number of query heads that share one key head."""
        return self.query_heads // self.kv_heads


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepBatch:
    """S sequences whose T new tokens are packed, one sequence after the other."""

    # [S, W] block numbers, padded with 0.
    tables: npt.NDArray[np.int32]
    # [S] tokens in the pool before this step, and new tokens (at least one).
    starts: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """The number of tokens of each sequence that attention sees in this step, [S]."""
        return self.starts + self.counts


class AttentionKernels(Protocol):
    """Paged attention over one pool.

    Slots past a sequence's end are never used, not even multiplied by zero: they may hold NaN.
    """

    #: The name in the registry.
    name: ClassVar[str]

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, destination), all layers; no destination is a source."""
        ...

    def plan(self, batch: StepBatch) -> None:
        """Prepare the step that the next calls of `write` and `attend` belong to."""
        ...

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store the new tokens' keys [T, kv_heads, key_width] and values [T, kv_heads, …]."""
        ...

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Return [T, query_heads, value_width] for queries [T, query_heads, key_width].

        Each token sees the tokens of its own sequence up to and including itself.
        """
        ...
