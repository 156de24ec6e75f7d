"""A whole decoder layer in C++: the common structure of Llama, Mistral, Qwen and others.

    ┌─► norm ─► q, k, v ─► (norm) ─► rotate ─► attend ─► o ─┐   ┌─► norm ─► gate, up ─► down ─┐
    x ────────────────────────────────────────────────────► + ──┴───────────────────────────► + ─►

Linear layers with the same input are one layer, sums start from the residual, and silu(gate) · up
is computed while both are in the CPU's cache. Everything else reads and writes memory once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from batchgen_kernels.cpu.library import PANEL, Decoder
from batchgen_kernels.cpu.linear import can_pack
from batchgen_kernels.cpu.memory import prefer_huge_pages
from batchgen_kernels.cpu.panels import addressed, pack, pack_int8, pad
from batchgen_kernels.interface import LayerShape

# Returns [T, Hq, Dv] for queries [T, Hq, Dk], keys [T, Hkv, Dk] and values [T, Hkv, Dv].
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}
HEAD_NORMS = {"q_norm", "k_norm"}
GATED = {"gate_proj", "up_proj", "down_proj"}
LINEARS = ("qkv", "o", "gate_up", "down")
SCALES = "{}_scales"
LINE = 64  # bytes of a cache line; weights are aligned to it
PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}


def is_decoder_layer(layer: Any) -> bool:
    """Return whether `layer` has exactly the parts with weights that a DecoderLayer has.

    The caller must check that they are connected in the same way.
    """
    if _parts(layer) != PARTS or _parts(layer.mlp) != GATED:
        return False
    attention = _parts(layer.self_attn)
    if attention - HEAD_NORMS != PROJECTIONS or len(attention & HEAD_NORMS) == 1:
        return False
    linears = [getattr(layer.self_attn, name) for name in PROJECTIONS]
    linears += [getattr(layer.mlp, name) for name in GATED]
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    norms += [getattr(layer.self_attn, name) for name in attention & HEAD_NORMS]
    return all(map(can_pack, linears)) and all(map(_is_norm, norms))


def _parts(module: nn.Module) -> set[str]:
    """Return the names of the direct children, and of the parameters, that hold weights."""
    children = {name for name, child in module.named_children() if list(child.parameters())}
    return children | {name for name, _ in module.named_parameters(recurse=False)}


def _is_norm(module: nn.Module) -> bool:
    return _parts(module) == {"weight"} and _epsilon(module) is not None


def _epsilon(norm: Any) -> float | None:
    epsilon: float | None = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return epsilon


class DecoderLayer(nn.Module):
    """A module with the same output as the decoder layer it was made from, without gradients."""

    def __init__(
        self,
        library: ctypes.CDLL,
        layer: Any,
        shape: LayerShape,
        attend: Attend,
        *,
        int8: bool = False,
    ) -> None:
        """Pack the weights of `layer` (see `is_decoder_layer`); `attend` is its attention.

        With `int8`, the weights are stored in eight bits.
        """
        super().__init__()
        self.shape = shape
        self.attend = attend
        self.hidden, self.inner = layer.mlp.up_proj.in_features, layer.mlp.up_proj.out_features
        self._library = library
        weights = _vectors(layer) | _matrices(library, layer, int8=int8)
        # A buffer of the module, because the struct holds only addresses.
        self.register_buffer("weights", _together(weights), persistent=False)
        matrices = {
            name: (weights.pop(name), weights.pop(SCALES.format(name), None)) for name in LINEARS
        }
        self._decoder = Decoder(
            **{name: addressed(*matrix) for name, matrix in matrices.items()},
            **{name: vector.data_ptr() for name, vector in weights.items()},
            **_epsilons(layer),
            hidden=self.hidden,
            inner=self.inner,
            query_heads=shape.query_heads,
            kv_heads=shape.kv_heads,
            key_width=shape.key_width,
            value_width=shape.value_width,
        )

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        """Return [1, T, hidden] for [1, T, hidden]; the embeddings are cos and sin, [1, T, R]."""
        sums = hidden_states[0].clone()
        scratch = torch.empty(len(sums), self.hidden + self.inner)
        attended = self.attend(*self._heads(sums, *position_embeddings, scratch)).contiguous()
        self._library.after(
            self._decoder,
            len(sums),
            sums.data_ptr(),
            attended.data_ptr(),
            scratch.data_ptr(),
            torch.get_num_threads(),
        )
        return sums[None]

    def _heads(
        self, rows: Tensor, cos: Tensor, sin: Tensor, scratch: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, [T, heads, width] each, ready for attention."""
        shape, width = self.shape, self.shape.key_width
        queries, keys = shape.query_heads * width, shape.kv_heads * width
        packed = torch.empty(len(rows), queries + keys + shape.kv_heads * shape.value_width)
        cos, sin = cos[0].contiguous(), sin[0].contiguous()
        self._library.before(
            self._decoder,
            len(rows),
            rows.data_ptr(),
            cos.data_ptr(),
            sin.data_ptr(),
            cos.shape[1],
            scratch.data_ptr(),
            packed.data_ptr(),
            torch.get_num_threads(),
        )
        return (
            packed[:, :queries].view(-1, shape.query_heads, width),
            packed[:, queries : queries + keys].view(-1, shape.kv_heads, width),
            packed[:, queries + keys :].view(-1, shape.kv_heads, shape.value_width),
        )


def _together(weights: dict[str, Tensor]) -> Tensor:
    """Move all of `weights` into one contiguous uint8 tensor and return it."""
    sizes = [-(-weight.nbytes // LINE) * LINE for weight in weights.values()]
    run = prefer_huge_pages(torch.empty(sum(sizes), dtype=torch.uint8))
    for (name, weight), part in zip(weights.items(), run.split(sizes), strict=True):  # type: ignore[no-untyped-call]
        moved = part[: weight.nbytes].view(weight.dtype)
        weights[name] = moved.copy_(weight.flatten())
    return run


def _matrices(library: ctypes.CDLL, layer: Any, *, int8: bool) -> dict[str, Tensor]:
    """Return {name in the struct: panels} of the linear layers, with int8 also their scales."""
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    gated = [_in_panels(linear.weight) for linear in (mlp.gate_proj, mlp.up_proj)]
    weights = {
        "qkv": torch.cat([linear.weight for linear in projections]),
        "o": attention.o_proj.weight,
        # Panels of gate and up alternate.
        "gate_up": torch.stack(gated, dim=1).flatten(0, 2),
        "down": mlp.down_proj.weight,
    }
    if not int8:
        return {name: pack(library, weight) for name, weight in weights.items()}
    matrices = {}
    for name, weight in weights.items():
        matrices[name], matrices[SCALES.format(name)] = pack_int8(weight)
    return matrices


def _vectors(layer: Any) -> dict[str, Tensor]:
    """Return {name in the struct: vector} of the biases and the norm weights of `layer`."""
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    gated = [_in_panels(_bias(linear)) for linear in (mlp.gate_proj, mlp.up_proj)]
    vectors = {
        "input_norm": layer.input_layernorm.weight.detach(),
        "qkv_bias": pad(torch.cat([_bias(linear) for linear in projections])),
        "mlp_norm": layer.post_attention_layernorm.weight.detach(),
        "gate_up_bias": torch.stack(gated, dim=1),
    }
    for name, linear in (("o_bias", attention.o_proj), ("down_bias", mlp.down_proj)):
        if linear.bias is not None:
            vectors[name] = pad(linear.bias)
    if hasattr(attention, "q_norm"):
        vectors["query_norm"] = attention.q_norm.weight.detach()
        vectors["key_norm"] = attention.k_norm.weight.detach()
    return vectors


def _in_panels(outputs: Tensor) -> Tensor:
    """Return [⌈N / 16⌉, 16, ...] for `outputs` [N, ...]; the last panel is padded with zeros."""
    missing = outputs.new_zeros(-len(outputs) % PANEL, *outputs.shape[1:])
    return torch.cat([outputs.detach(), missing]).view(-1, PANEL, *outputs.shape[1:])


def _epsilons(layer: Any) -> dict[str, float]:
    attention = layer.self_attn
    return {
        "input_epsilon": _epsilon(layer.input_layernorm) or 0.0,
        "query_epsilon": _epsilon(getattr(attention, "q_norm", None)) or 0.0,
        "key_epsilon": _epsilon(getattr(attention, "k_norm", None)) or 0.0,
        "mlp_epsilon": _epsilon(layer.post_attention_layernorm) or 0.0,
    }


def _bias(linear: nn.Linear) -> Tensor:
    """Return the bias [N] of `linear`, zeros if it has none."""
    bias: Tensor | None = linear.bias
    return linear.weight.new_zeros(linear.out_features) if bias is None else bias.detach()
