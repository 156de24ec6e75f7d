"""Paged attention plugged into a transformers model.

    transformers layer ──► attention interface ──► paged_attention ──► module.batchgen_attention
                           ("batchgen")                                 (LayerAttention, or the
                                                                         recorder of the probe)

The handler of a layer is an attribute of its attention module, because several families do not pass
keyword arguments down. No mask of the name "batchgen" is registered, so transformers builds none.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from batchgen_kernels.interface import AttentionKernels

Ints = npt.NDArray[np.int64]

NAME = "batchgen"
HANDLER = "batchgen_attention"


class AttentionHandler(Protocol):
    """Computes the attention of one module."""

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> Tensor:
        """Return [T, Hq, Dv] for [T, heads, width] each."""
        ...


class LayerAttention:
    """Writes a layer's keys and values to the pool and attends over it."""

    def __init__(self, kernels: AttentionKernels, layer: int) -> None:
        self.kernels = kernels
        self.layer = layer

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> Tensor:
        """Return [T, Hq, Dv] for the step that the kernels planned last."""
        self.kernels.write(self.layer, key, value)
        return self.kernels.attend(self.layer, query)


def paged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Pass one attention call on to the handler of its module; transformers calls this.

    Queries, keys and values are [1, heads, T, width]; the output is [1, T, Hq, Dv]. Some families
    pass the mask by keyword, so the parameter has the name that transformers uses.
    """
    handler: AttentionHandler = getattr(module, HANDLER)
    heads = (each[0].transpose(0, 1) for each in (query, key, value))
    return handler(module, *heads, attention_mask=attention_mask, **options)[None], None


AttentionInterface.register(NAME, paged_attention)


def forward(
    network: nn.Module, token_ids: Ints, positions: Ints, rows: Ints, *, device: torch.device
) -> Tensor:
    """Run packed tokens [T] at their positions [T]; return the float32 logits of `rows`, [N, V].

    The head is called inside the model's own forward, because that may scale or cap the final
    logits; it computes only `rows`.
    """
    arrays = token_ids, positions, rows
    return compute(network, *(torch.from_numpy(array).to(device) for array in arrays))


def compute(network: nn.Module, token_ids: Tensor, positions: Tensor, rows: Tensor) -> Tensor:
    """Do the same as `forward`, with int64 tensors on the device."""
    output = network(
        input_ids=token_ids[None],
        position_ids=positions[None],
        use_cache=False,
        logits_to_keep=rows,
    )
    logits: Tensor = output.logits[0]
    return logits.float()


def set_implementation(network: Any, name: str) -> bool:
    """Set the attention of every layer of `network` to `name`; return whether that worked.

    If a model cannot use it, transformers only logs a line.
    """
    network.set_attn_implementation(name)
    return bool(network.config._attn_implementation == name)
