"""What every implementation of the kernels offers, and what it is told.

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
    """The attention of one layer, as it was seen when the model was probed."""

    query_heads: int
    kv_heads: int
    # Elements of one key head and one value head.
    key_width: int
    value_width: int
    # Scores are query · key · scale.
    scale: float
    # Keys a query sees, its own included; None sees all before it.
    window: int | None = None
    # Scores become softcap · tanh(scores / softcap).
    softcap: float | None = None
    # One logit a query head, [query_heads]: takes part in the softmax, adds nothing to the output.
    sinks: Tensor | None = None

    @property
    def group(self) -> int:
        """Query heads that share one key head."""
        return self.query_heads // self.kv_heads


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepBatch:
    """S sequences whose new tokens are packed one sequence after the other, T in all."""

    # [S, W] block numbers, padded with 0.
    tables: npt.NDArray[np.int32]
    # [S] tokens in the pool before this step, and new ones (at least one).
    starts: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each sequence that attention sees in this step, [S]."""
        return self.starts + self.counts


class AttentionKernels(Protocol):
    """Paged attention over one pool. Slots past a sequence's end are never used, even to be
    multiplied by zero: an unwritten slot may hold NaN."""

    #: What the registry calls them.
    name: ClassVar[str]

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, destination), all layers; no destination is a source."""
        ...

    def plan(self, batch: StepBatch) -> None:
        """Take in what the next calls of `write` and `attend` are about."""
        ...

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store the new tokens' keys [T, kv_heads, key_width] and values [T, kv_heads, …]."""
        ...

    def attend(self, layer: int, query: Tensor) -> Tensor:
        """Return [T, query_heads, value_width] for queries [T, query_heads, key_width].

        Each token sees the tokens of its own sequence up to and including itself.
        """
        ...
