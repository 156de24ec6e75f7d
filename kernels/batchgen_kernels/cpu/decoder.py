"""A whole decoder layer by the C++ file: the common shape of Llama, Mistral, Qwen and others.

    ┌─► norm ─► q, k, v ─► (norm) ─► rotate ─► attend ─► o ─┐   ┌─► norm ─► gate, up ─► down ─┐
    x ────────────────────────────────────────────────────► + ──┴───────────────────────────► + ─►

Linear layers that read the same rows are one, sums start from what they are added to, and
silu(gate) · up is taken while both are in the cache. Everything else passes over memory once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from batchgen_kernels.cpu.library import PANEL
from batchgen_kernels.cpu.linear import PackedLinear, bias_of, can_pack, pack, pad, rows_of
from batchgen_kernels.interface import LayerShape

# The output [T, Hq, Dv] for queries [T, Hq, Dk], keys [T, Hkv, Dk] and values [T, Hkv, Dv].
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}
HEAD_NORMS = {"q_norm", "k_norm"}
GATED = {"gate_proj", "up_proj", "down_proj"}
PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}


def is_decoder_layer(layer: Any) -> bool:
    """Return whether `layer` has the parts, and no others with weights, that a DecoderLayer has.

    That they are put together in the same way is for the caller to find out.
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
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))


class RMSNorm(nn.Module):
    """x / rms(x) · weight over runs of `width` elements."""

    weight: Tensor

    def __init__(self, library: ctypes.CDLL, norm: nn.Module) -> None:
        """Take the weight and epsilon of `norm`."""
        super().__init__()
        weight: Any = norm.weight
        self.register_buffer("weight", weight.detach().float().contiguous(), persistent=False)
        self.width = len(self.weight)
        self.epsilon = _epsilon(norm)
        self._norm = library.norm

    def forward(self, rows: Tensor) -> Tensor:
        """Return the norms of contiguous `rows` [T, width]."""
        out = torch.empty_like(rows)
        self._compute(rows, 1, out)
        return out

    def each_head(self, rows: Tensor, heads: int) -> None:
        """Norm the first `heads` runs of each of `rows` [T, …] in place."""
        self._compute(rows, heads, rows)

    def _compute(self, rows: Tensor, heads: int, out: Tensor) -> None:
        self._norm(
            rows.data_ptr(),
            len(rows),
            rows.stride(0),
            heads,
            self.width,
            self.weight.data_ptr(),
            self.epsilon,
            out.data_ptr(),
            out.stride(0),
            torch.get_num_threads(),
        )


class GatedLinear(nn.Module):
    """silu(x · gateᵀ) · (x · upᵀ), both from panels that take turns."""

    panels: Tensor
    biases: Tensor

    def __init__(self, library: ctypes.CDLL, gate: nn.Linear, up: nn.Linear) -> None:
        """Pack two float32 layers of one shape, which may be dropped afterwards."""
        super().__init__()
        self.in_features, self.out_features = gate.in_features, gate.out_features
        turns = [pack(library, layer.weight.detach().contiguous()) for layer in (gate, up)]
        self.register_buffer("panels", torch.stack(turns, dim=1), persistent=False)
        biases = [pad(bias_of(layer)).view(-1, PANEL) for layer in (gate, up)]
        self.register_buffer("biases", torch.stack(biases, dim=1), persistent=False)
        self._gated = library.gated

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32 [T, N] for inputs [T, K]."""
        rows = rows_of(inputs, self.in_features)
        out = torch.empty(len(rows), self.out_features)
        self._gated(
            rows.data_ptr(),
            len(rows),
            rows.stride(0),
            self.panels.data_ptr(),
            self.biases.data_ptr(),
            out.data_ptr(),
            self.out_features,
            self.in_features,
            torch.get_num_threads(),
        )
        return out


class DecoderLayer(nn.Module):
    """Computes what the decoder layer does that it was made from, without gradients."""

    def __init__(self, library: ctypes.CDLL, layer: Any, shape: LayerShape, attend: Attend) -> None:
        """Pack the weights of `layer` (see `is_decoder_layer`); `attend` is its attention."""
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.shape = shape
        self.attend = attend
        self.input_norm = RMSNorm(library, layer.input_layernorm)
        self.qkv = PackedLinear(library, attention.q_proj, attention.k_proj, attention.v_proj)
        norms = hasattr(attention, "q_norm")
        self.query_norm = RMSNorm(library, attention.q_norm) if norms else None
        self.key_norm = RMSNorm(library, attention.k_norm) if norms else None
        self.o = PackedLinear(library, attention.o_proj)
        self.mlp_norm = RMSNorm(library, layer.post_attention_layernorm)
        self.gate_up = GatedLinear(library, mlp.gate_proj, mlp.up_proj)
        self.down = PackedLinear(library, mlp.down_proj)
        self._rotate = library.rotate

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        """Return [1, T, hidden] for [1, T, hidden]; the embeddings are cos and sin, [1, T, R]."""
        rows = hidden_states[0].clone()
        query, key, value = self._heads(self.qkv(self.input_norm(rows)), position_embeddings)
        self.o.add_to(rows, self.attend(query, key, value).flatten(1))
        self.down.add_to(rows, self.gate_up(self.mlp_norm(rows)))
        return rows[None]

    def _heads(
        self, packed: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return views of `packed` [T, (Hq + Hkv) · Dk + Hkv · Dv], turned by their positions."""
        shape, width = self.shape, self.shape.key_width
        queries, keys = shape.query_heads * width, shape.kv_heads * width
        if self.query_norm is not None and self.key_norm is not None:
            self.query_norm.each_head(packed, shape.query_heads)
            self.key_norm.each_head(packed[:, queries:], shape.kv_heads)
        cos, sin = (table.flatten(0, -2).contiguous() for table in position_embeddings)
        assert cos.dtype == sin.dtype == torch.float32
        self._rotate(
            packed.data_ptr(),
            len(packed),
            packed.stride(0),
            shape.query_heads + shape.kv_heads,
            width,
            cos.data_ptr(),
            sin.data_ptr(),
            cos.shape[1],
            torch.get_num_threads(),
        )
        return (
            packed[:, :queries].view(-1, shape.query_heads, width),
            packed[:, queries : queries + keys].view(-1, shape.kv_heads, width),
            packed[:, queries + keys :].view(-1, shape.kv_heads, shape.value_width),
        )
