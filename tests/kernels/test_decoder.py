"""A decoder layer by the C++ file against one of plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batchgen_kernels.cpu import library as cpu_library
from batchgen_kernels.cpu.decoder import DecoderLayer, is_decoder_layer
from batchgen_kernels.cpu.rounding import round_linears
from batchgen_kernels.interface import LayerShape

Sizes = dict[str, Any]
SIZES: Sizes = {"hidden": 24, "inner": 40, "heads": 4, "kv_heads": 2, "width": 8}


class Norm(nn.Module):
    """The layer that transformers has in most families."""

    def __init__(self, width: int, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))
        self.variance_epsilon = epsilon

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.rms_norm(rows, rows.shape[-1:], self.weight, self.variance_epsilon)


class Attention(nn.Module):
    """Each token attends what `attend` says."""

    def __init__(
        self, *, hidden: int, heads: int, kv_heads: int, width: int, bias: bool, norms: bool
    ) -> None:
        super().__init__()
        self.width = width
        self.q_proj = nn.Linear(hidden, heads * width, bias=bias)
        self.k_proj = nn.Linear(hidden, kv_heads * width, bias=bias)
        self.v_proj = nn.Linear(hidden, kv_heads * width, bias=bias)
        self.o_proj = nn.Linear(heads * width, hidden, bias=bias)
        if norms:
            self.q_norm, self.k_norm = Norm(width), Norm(width, 0.5)

    def forward(self, rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        layers = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (layer(rows).view(len(rows), -1, self.width) for layer in layers)
        if hasattr(self, "q_norm"):
            query, key = self.q_norm(query), self.k_norm(key)
        out: Tensor = self.o_proj(
            attend(turn(query, cos, sin), turn(key, cos, sin), value).flatten(1)
        )
        return out


class Gated(nn.Module):
    def __init__(self, *, hidden: int, inner: int, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=bias)
        self.up_proj = nn.Linear(hidden, inner, bias=bias)
        self.down_proj = nn.Linear(inner, hidden, bias=bias)

    def forward(self, rows: Tensor) -> Tensor:
        opened = nn.functional.silu(self.gate_proj(rows)) * self.up_proj(rows)
        out: Tensor = self.down_proj(opened)
        return out


class Layer(nn.Module):
    def __init__(
        self, *, inner: int, hidden: int, bias: bool = False, norms: bool = False, **heads: int
    ) -> None:
        super().__init__()
        self.input_layernorm = Norm(hidden)
        self.self_attn = Attention(hidden=hidden, bias=bias, norms=norms, **heads)
        self.post_attention_layernorm = Norm(hidden, 0.1)
        self.mlp = Gated(hidden=hidden, inner=inner, bias=bias)
        self.requires_grad_(False)

    def forward(self, rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows = rows + self.self_attn(self.input_layernorm(rows), cos, sin)
        out: Tensor = rows + self.mlp(self.post_attention_layernorm(rows))
        return out


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Something that shows queries, keys and values alike, each token by itself."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    return value * (1 + torch.tanh((query * key).sum(-1, keepdim=True)))


def turn(rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn [T, heads, width] by [T, rotary]; what lies behind it stays."""
    rotary = cos.shape[1]
    turned, rest = rows[..., :rotary], rows[..., rotary:]
    half = torch.cat((-turned[..., rotary // 2 :], turned[..., : rotary // 2]), dim=-1)
    return torch.cat((turned * cos[:, None] + half * sin[:, None], rest), dim=-1)


def fused(layer: Layer, sizes: Sizes, *, int8: bool = False) -> DecoderLayer:
    library = cpu_library.load()
    assert library is not None
    shape = LayerShape(
        query_heads=sizes["heads"],
        kv_heads=sizes["kv_heads"],
        key_width=sizes["width"],
        value_width=sizes["width"],
        scale=1.0,
    )
    return DecoderLayer(library, layer, shape, attend, int8=int8)


def check(
    rows: int, rotary: int | None = None, *, int8: bool = False, **overrides: Any
) -> DecoderLayer:
    sizes = {**SIZES, **overrides}
    torch.manual_seed(0)
    layer = Layer(**sizes)
    if int8:
        round_linears(layer)
    assert is_decoder_layer(layer)
    hidden = torch.randn(rows, sizes["hidden"])
    cos, sin = torch.randn(2, rows, sizes["width"] if rotary is None else rotary)
    expected, before = layer(hidden, cos, sin), hidden.clone()
    module = fused(layer, sizes, int8=int8)
    got = module(hidden[None], position_embeddings=(cos[None], sin[None]))
    assert torch.equal(hidden, before), "what came in is left as it was"
    assert got.shape == (1, *expected.shape)
    assert float((got[0] - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    return module


@pytest.mark.parametrize("rows", [1, 5, 6, 7, 97, 500])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norms", [False, True])
def test_any_number_of_rows(rows: int, bias: bool, norms: bool) -> None:
    check(rows, bias=bias, norms=norms)


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden": 16, "inner": 16},
        {"hidden": 1, "inner": 1},
        {"hidden": 577, "inner": 100, "width": 64},
        {"hidden": 3000, "inner": 33},
        {"heads": 3, "kv_heads": 3, "width": 2},
        {"heads": 9, "kv_heads": 3, "width": 20},
    ],
)
def test_any_sizes(sizes: Sizes) -> None:
    for rows in (3, 50):
        check(rows, bias=True, norms=True, **sizes)


@pytest.mark.parametrize("sizes", [{}, {"hidden": 577, "inner": 100, "width": 64}])
def test_weights_of_eight_bits(sizes: Sizes) -> None:
    for rows in (1, 7, 50):
        small = check(rows, bias=True, norms=True, int8=True, **sizes)
        whole = check(rows, bias=True, norms=True, **sizes)
    assert sum(b.nbytes for b in small.buffers()) < 0.5 * sum(b.nbytes for b in whole.buffers())


@pytest.mark.parametrize("rotary", [2, 6])
def test_part_of_a_head_turns(rotary: int) -> None:
    check(9, rotary, norms=True)


def test_a_gate_far_from_zero_is_open_or_shut() -> None:
    sizes = {**SIZES, "hidden": 1, "inner": 1}
    layer = Layer(**sizes, bias=True)
    nn.init.zeros_(layer.self_attn.o_proj.weight), nn.init.zeros_(layer.self_attn.o_proj.bias)
    for linear in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj):
        nn.init.zeros_(linear.weight), nn.init.zeros_(linear.bias)
    layer.mlp.up_proj.bias.fill_(1), layer.mlp.down_proj.weight.fill_(1)
    for bias, expected in [(-1e4, 0.0), (-90.0, 0.0), (90.0, 90.0), (1e4, 1e4)]:
        layer.mlp.gate_proj.bias.fill_(bias)
        still = torch.ones(1, 1, 8), torch.zeros(1, 1, 8)
        got = fused(layer, sizes)(torch.zeros(1, 1, 1), position_embeddings=still)
        assert float(got) == pytest.approx(expected, abs=1e-30)


def test_nan_stays_in_its_row() -> None:
    layer = Layer(**SIZES)
    hidden = torch.randn(1, 7, 24)
    hidden[0, 2, 3] = torch.nan
    got = fused(layer, SIZES)(hidden, position_embeddings=tuple(torch.randn(2, 1, 7, 8)))
    assert got[0, 2].isnan().all()
    assert got[0, [0, 1, 3, 4, 5, 6]].isfinite().all()


def test_a_row_has_the_same_bits_in_every_batch() -> None:
    layer = fused(Layer(**SIZES, norms=True), SIZES)
    hidden, (cos, sin) = torch.randn(1, 130, 24), torch.randn(2, 1, 130, 8)
    together = layer(hidden, position_embeddings=(cos, sin))
    for rows in (slice(0, 1), slice(7, 12), slice(60, 130)):
        some = layer(hidden[:, rows], position_embeddings=(cos[:, rows], sin[:, rows]))
        assert torch.equal(some, together[:, rows])


def test_what_has_other_parts_is_no_such_layer() -> None:
    def without(name: str) -> Layer:
        layer = Layer(**SIZES, norms=True)
        delattr(layer.self_attn, name)
        return layer

    assert not is_decoder_layer(without("k_norm"))
    assert not is_decoder_layer(without("k_proj"))
    more = Layer(**SIZES)
    more.extra = nn.Linear(2, 2)
    assert not is_decoder_layer(more)
    scaled = Layer(**SIZES)
    scaled.mlp.scale = nn.Parameter(torch.ones(1))
    assert not is_decoder_layer(scaled)
    half = Layer(**SIZES)
    half.mlp.half()
    assert not is_decoder_layer(half)
    hooked = Layer(**SIZES)
    hooked.mlp.up_proj.register_forward_hook(lambda *_: None)
    assert not is_decoder_layer(hooked)
    bare = Layer(**SIZES)
    del bare.input_layernorm.variance_epsilon
    assert not is_decoder_layer(bare)
