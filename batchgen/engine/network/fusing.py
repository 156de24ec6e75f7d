"""A probed float32 model on the CPU, its layers swapped for those of the C++ file.

Whether a decoder layer is put together as the fused one is not looked up by the name of its
family: the fused layer is asked beside the layer itself, and stays where both answer the same.
All other linear layers are packed one by one.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from batchgen.engine.network.attention import HANDLER, AttentionHandler, forward
from batchgen.engine.network.probe import ProbedLayer
from batchgen.engine.network.questions import SPAN, far
from batchgen_kernels.cpu.decoder import DecoderLayer, is_decoder_layer
from batchgen_kernels.cpu.library import load
from batchgen_kernels.cpu.linear import pack_linears, release

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

TOKENS = 17  # of the question's positions near the start
# Largest difference of two layers' outputs, in units of the largest thing that the layer adds.
TOLERANCE = 1e-5


def fuse(network: nn.Module, layers: list[ProbedLayer], *, longest: int, int8: bool = False) -> int:
    """Swap what can be swapped; return how many decoder layers are fused. 0 without a compiler.

    `longest` is the context of the model in tokens: the layers must be the same anywhere in it.

    `int8` keeps eight bits of each weight: those of `network` must be rounded to as much already.
    """
    library = load()
    if library is None:
        return 0
    fused = _fuse_layers(network, layers, library, longest=longest, int8=int8)
    for parent in network.modules():
        for name, child in parent.named_children():
            if child in fused:
                setattr(parent, name, fused[child])
    pack_linears(network, int8=int8)
    return len(fused)


def _fuse_layers(
    network: nn.Module,
    layers: list[ProbedLayer],
    library: ctypes.CDLL,
    *,
    longest: int,
    int8: bool,
) -> dict[nn.Module, DecoderLayer]:
    """Return the decoder layers that a fused one can stand for, each with that."""
    probed = {layer.module: layer for layer in layers}
    fused: dict[nn.Module, DecoderLayer] = {}

    def compare(layer: Any, args: Any, kwargs: Any, _: Any) -> None:
        shape = probed[layer.self_attn].shape
        attend = partial(_attend, layer.self_attn)
        candidate = DecoderLayer(library, layer, shape, attend, int8=int8)
        if _same(candidate, layer, args, kwargs):
            fused[layer] = candidate
            # At once, so that never more than one layer's weights exist twice.
            for linear in layer.modules():
                if isinstance(linear, nn.Linear):
                    release(linear)

    hooks: list[RemovableHandle] = [
        module.register_forward_hook(compare, with_kwargs=True)
        for module in network.modules()
        if getattr(module, "self_attn", None) in probed and is_decoder_layer(module)
    ]
    _ask(network, layers, longest)
    for hook in hooks:
        hook.remove()
    return fused


def _ask(network: nn.Module, layers: list[ProbedLayer], longest: int) -> None:
    """Compute a few tokens, none at position 0, where a rotation changes nothing."""
    for layer in layers:
        setattr(layer.module, HANDLER, _causal)
    embeddings: Any = network.get_input_embeddings()  # type: ignore[operator]
    config: Any = network.config
    starts = far(config.get_text_config(), longest)
    positions = np.arange(1, min(TOKENS, longest))
    positions = np.concatenate([positions, *(np.arange(at, at + SPAN) for at in starts)])
    tokens = np.random.default_rng(0).integers(0, embeddings.num_embeddings, len(positions))
    with torch.inference_mode():
        forward(network, tokens, positions, np.arange(1), device=torch.device("cpu"))
    for layer in layers:
        delattr(layer.module, HANDLER)


def _causal(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """Attend within one sequence: [T, Hq, Dv] for [T, heads, width] each."""
    query, key, value = (each.transpose(0, 1)[None] for each in (query, key, value))
    attend = nn.functional.scaled_dot_product_attention
    out = attend(query, key, value, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1)


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Hand the heads of a fused layer, [T, heads, width], to the handler of its attention."""
    handler: AttentionHandler = getattr(module, HANDLER)
    return handler(module, query, key, value)


def _same(candidate: DecoderLayer, layer: nn.Module, args: Any, kwargs: Any) -> bool:
    """Return whether `candidate` answers a call like this one as `layer` does."""
    embeddings = kwargs.get("position_embeddings")
    if not isinstance(embeddings, tuple) or len(args) != 1:
        return False
    if any(table.dtype != torch.float32 for table in embeddings):
        return False
    # Not what the layer was given: some models make single elements so large that the rounding of
    # those hides the rest.
    question = torch.randn(args[0].shape, generator=torch.Generator().manual_seed(0))
    expected = layer.forward(question, **kwargs)
    difference = (candidate(question, **kwargs) - expected).abs().max()
    return bool(difference <= TOLERANCE * (expected - question).abs().max())
