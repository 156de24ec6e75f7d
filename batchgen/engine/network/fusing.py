"""Replaces the layers of a probed float32 model on the CPU by the layers of the C++ file.

A list of families does not decide whether a decoder layer can be replaced. Instead the layer and
its fused counterpart compute the same input, and the fused one is used if the outputs are equal.
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

TOKENS = 17  # tokens of the test input near the start
# Largest difference of two layers' outputs, relative to the largest number that the layer adds.
TOLERANCE = 1e-5


def fuse(network: nn.Module, layers: list[ProbedLayer], *, longest: int, int8: bool = False) -> int:
    """Replace the layers that can be replaced; return how many decoder layers are fused.

    Without a compiler nothing is replaced. `longest` is the context of the model in tokens: outputs
    must be equal at all its positions. `int8` stores weights in eight bits: those of `network` must
    be rounded already.
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
    """Return {decoder layer: its fused counterpart} for layers with equal outputs."""
    probed = {layer.module: layer for layer in layers}
    fused: dict[nn.Module, DecoderLayer] = {}

    def compare(layer: Any, args: Any, kwargs: Any, _: Any) -> None:
        shape = probed[layer.self_attn].shape
        attend = partial(_attend, layer.self_attn)
        candidate = DecoderLayer(library, layer, shape, attend, int8=int8)
        if _same(candidate, layer, args, kwargs):
            fused[layer] = candidate
            # Released now, so that the weights of at most one layer exist twice.
            for linear in layer.modules():
                if isinstance(linear, nn.Linear):
                    release(linear)

    hooks: list[RemovableHandle] = [
        module.register_forward_hook(compare, with_kwargs=True)
        for module in network.modules()
        if getattr(module, "self_attn", None) in probed and is_decoder_layer(module)
    ]
    _run_once(network, layers, longest)
    for hook in hooks:
        hook.remove()
    return fused


def _run_once(network: nn.Module, layers: list[ProbedLayer], longest: int) -> None:
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
    """Attend within one sequence; return [T, Hq, Dv] for [T, heads, width] each."""
    query, key, value = (each.transpose(0, 1)[None] for each in (query, key, value))
    attend = nn.functional.scaled_dot_product_attention
    out = attend(query, key, value, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1)


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Pass the heads of a fused layer, [T, heads, width], to the handler of its attention."""
    handler: AttentionHandler = getattr(module, HANDLER)
    return handler(module, query, key, value)


def _same(candidate: DecoderLayer, layer: nn.Module, args: Any, kwargs: Any) -> bool:
    """Return whether `candidate` and `layer` have equal outputs in a call with these arguments."""
    embeddings = kwargs.get("position_embeddings")
    if not isinstance(embeddings, tuple) or len(args) != 1:
        return False
    if any(table.dtype != torch.float32 for table in embeddings):
        return False
    # A random input replaces the layer's own: in some models single elements of that are so large
    # that their rounding errors hide all other differences.
    question = torch.randn(args[0].shape, generator=torch.Generator().manual_seed(0))
    expected = layer.forward(question, **kwargs)
    difference = (candidate(question, **kwargs) - expected).abs().max()
    return bool(difference <= TOLERANCE * (expected - question).abs().max())
