"""The parts of a fused decoder layer against torch."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batchgen_kernels.cpu import library as cpu_library
from batchgen_kernels.cpu.decoder import GatedLinear, RMSNorm
from batchgen_kernels.cpu.linear import PackedLinear


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    found = cpu_library.load()
    assert found is not None
    return found


def layer(outputs: int, inputs: int, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def difference(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).abs().max())


@pytest.mark.parametrize("outputs", [1, 16, 40, 100])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 6, 7, 200])
def test_gated(library: ctypes.CDLL, outputs: int, bias: bool, rows: int) -> None:
    gate, up = layer(outputs, 33, bias=bias), layer(outputs, 33, bias=bias, seed=1)
    inputs = torch.randn(rows, 33)
    expected = nn.functional.silu(gate(inputs)) * up(inputs)
    assert difference(GatedLinear(library, gate, up)(inputs), expected) < 1e-5


def test_a_gate_far_from_zero_is_open_or_shut(library: ctypes.CDLL) -> None:
    gate, up = layer(16, 1, bias=False), layer(16, 1, bias=False)
    gate.weight.fill_(1), up.weight.fill_(1)
    inputs = torch.tensor([[-1e4], [-90.0], [0.0], [90.0], [1e4], [torch.nan]])
    got = GatedLinear(library, gate, up)(inputs)[:, 0]
    assert got[:3].abs().max() < 1e-30
    assert got[3:5].tolist() == [8100.0, 1e8]
    assert got[5].isnan()


@pytest.mark.parametrize("outputs", [16, 50])
@pytest.mark.parametrize("bias", [True, False])
def test_sums_start_from_what_is_added_to(library: ctypes.CDLL, outputs: int, bias: bool) -> None:
    linear = layer(outputs, 20, bias=bias)
    inputs, sums = torch.randn(99, 20), torch.randn(99, outputs)
    expected = sums + linear(inputs)
    PackedLinear(library, linear).add_to(sums, inputs)
    assert difference(sums, expected) < 1e-5


@pytest.mark.parametrize("biases", [(True, True, True), (True, False, True), (False,) * 3])
def test_layers_with_the_same_inputs_are_one(
    library: ctypes.CDLL, biases: tuple[bool, ...]
) -> None:
    linears = [layer(n, 24, bias=bias) for n, bias in zip((24, 10, 7), biases, strict=True)]
    inputs = torch.randn(13, 24)
    expected = torch.cat([linear(inputs) for linear in linears], dim=1)
    assert difference(PackedLinear(library, *linears)(inputs), expected) < 1e-5


class Norm(nn.Module):
    """What transformers has in most families."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width), requires_grad=False)
        self.variance_epsilon = epsilon

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.rms_norm(rows, rows.shape[-1:], self.weight, self.variance_epsilon)


@pytest.mark.parametrize("width", [1, 7, 64, 577])
@pytest.mark.parametrize("rows", [1, 500])
def test_norm(library: ctypes.CDLL, width: int, rows: int) -> None:
    norm, inputs = Norm(width, 1e-3), torch.randn(rows, width)
    assert difference(RMSNorm(library, norm)(inputs), norm(inputs)) < 1e-5


def test_norm_of_the_first_heads_alone(library: ctypes.CDLL) -> None:
    norm, rows = Norm(12, 1e-6), torch.randn(9, 60)
    expected = rows.clone()
    expected[:, :36] = norm(rows[:, :36].reshape(9, 3, 12)).flatten(1)
    RMSNorm(library, norm).each_head(rows, 3)
    assert difference(rows, expected) < 1e-5


def rotated(rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn [T, heads, width] by [T, rotary], what lies behind it stays."""
    rotary = cos.shape[1]
    turned, rest = rows[..., :rotary], rows[..., rotary:]
    half = torch.cat((-turned[..., rotary // 2 :], turned[..., : rotary // 2]), dim=-1)
    return torch.cat((turned * cos[:, None] + half * sin[:, None], rest), dim=-1)


@pytest.mark.parametrize(("width", "rotary"), [(2, 2), (12, 12), (64, 64), (12, 8)])
@pytest.mark.parametrize("count", [3, 700])
def test_rotation(library: Any, width: int, rotary: int, count: int) -> None:
    rows = torch.randn(count, 5 * width)
    cos, sin = torch.randn(count, rotary), torch.randn(count, rotary)
    expected = rows.clone()
    turned = rotated(rows[:, : 3 * width].reshape(count, 3, width), cos, sin)
    expected[:, : 3 * width] = turned.flatten(1)
    addresses = cos.data_ptr(), sin.data_ptr()
    library.rotate(rows.data_ptr(), count, 5 * width, 3, width, *addresses, rotary, 2)
    assert difference(rows, expected) < 1e-5
