"""Weights of eight bits: what is kept of them, and that every path computes with just that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from batchgen_kernels.cpu import library as cpu_library
from batchgen_kernels.cpu.linear import PackedLinear, pack_linears
from batchgen_kernels.cpu.panels import encode
from batchgen_kernels.cpu.rounding import round_linears
from tests.kernels.test_linear import Model, layer


def packed(module: nn.Linear) -> PackedLinear:
    library = cpu_library.load()
    assert library is not None
    return PackedLinear(library, module, int8=True)


def test_a_code_is_the_nearest_of_255() -> None:
    weight = torch.tensor([[1.27, -0.5, 0.004, -0.006], [0.0, 0.0, 0.0, 0.0]])
    codes, scales = encode(weight)
    assert codes.tolist() == [[127, -50, 0, -1], [0, 0, 0, 0]]
    assert scales.tolist() == pytest.approx([0.01, 0.0])
    torch.manual_seed(0)
    weight = torch.randn(30, 200)
    codes, scales = encode(weight)
    assert ((codes * scales[:, None] - weight).abs() <= 0.5001 * scales[:, None]).all()
    assert (codes.abs().amax(1) == 127).all()


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 97, 500])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 8), (40, 72), (100, 577), (33, 3000)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_rounded_weights_are_what_is_computed_with(
    rows: int, outputs: int, inputs: int, bias: bool
) -> None:
    module = layer(outputs, inputs, bias=bias)
    swapped, x = packed(module), torch.randn(rows, inputs)
    assert swapped.panels.dtype == torch.int8
    round_linears(module)
    expected = nn.functional.linear(x.double(), module.weight.double())
    if bias:
        expected += module.bias.double()
    assert float((swapped(x) - expected).abs().max()) < 1e-5
    assert float((swapped.weight - module.weight).abs().max()) < 1e-7
    assert repr(swapped).endswith("int8)")


def test_a_row_has_the_same_bits_in_every_batch() -> None:
    module, inputs = packed(layer(50, 300)), torch.randn(130, 300)
    together = module(inputs)
    for rows in (slice(0, 1), slice(7, 12), slice(60, 130)):
        assert torch.equal(module(inputs[rows]), together[rows])


def test_rounding_twice_is_rounding_once() -> None:
    module = layer(50, 300)
    round_linears(module)
    once = module.weight.clone()
    round_linears(module)
    assert float((module.weight - once).abs().max()) < 1e-7 * float(once.abs().max())


def test_an_embedding_tied_to_the_head_is_not_rounded() -> None:
    model = Model().eval()
    table = model.embedding.weight.clone()
    round_linears(model)
    assert torch.equal(model.embedding.weight, table)
    assert not torch.equal(model.head.weight, table)
    expected = model(torch.arange(30))
    pack_linears(model, int8=True)
    assert float((model(torch.arange(30)) - expected).abs().max()) < 1e-6


def test_a_weight_takes_a_byte() -> None:
    model = nn.Sequential(layer(32, 64, bias=False))
    pack_linears(model, int8=True)
    assert sum(b.nbytes for b in model.buffers()) == 32 * 64 + 32 * 4
    assert sum(p.numel() for p in model.parameters()) == 0
