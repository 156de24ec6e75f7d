"""Packed linear layers against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from batchgen_kernels.cpu import library as cpu_library
from batchgen_kernels.cpu import linear
from batchgen_kernels.cpu.linear import PackedLinear, pack_linears


def layer(outputs: int, inputs: int, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def packed(module: nn.Linear) -> PackedLinear:
    library = cpu_library.load()
    assert library is not None
    return PackedLinear(library, module)


def error(module: nn.Linear, inputs: Tensor) -> float:
    expected = nn.functional.linear(inputs.double(), module.weight.double())
    if module.bias is not None:
        expected += module.bias.double()
    out = packed(module)(inputs)
    assert out.dtype == torch.float32
    assert out.shape == expected.shape
    return float((out - expected).abs().max()) if out.numel() else 0.0


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 95, 96, 97, 193, 500, 2048])
def test_any_number_of_rows(rows: int) -> None:
    assert error(layer(40, 72), torch.randn(rows, 72)) < 1e-5


@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 100, 192])
@pytest.mark.parametrize("inputs", [1, 7, 8, 16, 100, 577])
def test_any_size(outputs: int, inputs: int) -> None:
    for bias in (True, False):
        module = layer(outputs, inputs, bias=bias)
        for rows in (1, 9, 100):
            assert error(module, torch.randn(rows, inputs)) < 2e-5


def test_inputs_of_any_shape_and_order() -> None:
    module = layer(20, 12)
    assert error(module, torch.randn(2, 3, 12)) < 1e-5
    assert error(module, torch.randn(12)) < 1e-5
    assert error(module, torch.randn(0, 12)) == 0
    assert error(module, torch.randn(12, 9).T) < 1e-5
    assert error(module, torch.randn(9, 30)[:, 5:17]) < 1e-5
    assert error(module, torch.randn(3, 1, 12).expand(3, 4, 12)) < 1e-5


def test_a_row_has_the_same_bits_in_every_batch() -> None:
    module = packed(layer(50, 300))
    inputs = torch.randn(130, 300)
    together = module(inputs)
    for rows in (slice(0, 1), slice(7, 12), slice(60, 130)):
        assert torch.equal(module(inputs[rows]), together[rows])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    assert torch.equal(module(inputs), together)
    torch.set_num_threads(before)


def test_nan_and_infinity_stay_in_their_row() -> None:
    module = packed(layer(20, 8))
    inputs = torch.ones(7, 8)
    inputs[2, 3], inputs[4, 5] = torch.nan, torch.inf
    out = module(inputs)
    assert out[2].isnan().all()
    assert out[4].isinf().all()
    assert out[[0, 1, 3, 5, 6]].isfinite().all()


class Model(nn.Module):
    """A head tied to its embedding, a layer used twice, and layers that must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.first = nn.Sequential(layer(8, 8), nn.ReLU(), layer(24, 8, seed=1))
        self.again = self.first[0]
        self.narrow = nn.Linear(8, 8, dtype=torch.bfloat16)
        self.hooked = layer(8, 8)
        self.hooked.register_forward_hook(lambda *_: None)
        self.other = nn.modules.linear.NonDynamicallyQuantizableLinear(8, 8)
        self.head = layer(30, 8, bias=False)
        self.embedding.weight = self.head.weight
        self.requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.again(self.embedding(ids)) + self.first[0](self.embedding(ids))
        logits: Tensor = self.head(self.other(self.hooked(hidden)))
        return logits


def test_a_network_computes_the_same_with_its_layers_swapped() -> None:
    torch.manual_seed(0)
    model, ids = Model().eval(), torch.arange(30)
    expected, table = model(ids), model.embedding.weight.clone()
    assert pack_linears(model) == 3
    assert float((model(ids) - expected).abs().max()) < 1e-6
    assert torch.equal(model.embedding.weight, table)
    assert model.again is model.first[0]
    assert isinstance(model.again, PackedLinear)
    assert not any(isinstance(m, PackedLinear) for m in (model.narrow, model.hooked, model.other))


def test_the_weights_do_not_stay_twice() -> None:
    model = nn.Sequential(layer(32, 64, bias=False))
    pack_linears(model)
    assert sum(p.numel() for p in model.parameters()) == 0
    assert sum(b.numel() for b in model.buffers()) == 32 * 64


def test_the_weights_can_be_looked_at() -> None:
    module = layer(20, 12)
    swapped = packed(module)
    assert torch.equal(swapped.weight, module.weight)
    assert swapped.bias is not None
    assert torch.equal(swapped.bias, module.bias)
    assert packed(layer(20, 12, bias=False)).bias is None
    assert repr(swapped) == "PackedLinear(in_features=12, out_features=20, bias=True)"


def test_without_a_library_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "load", lambda: None)
    model = nn.Sequential(layer(8, 8))
    assert pack_linears(model) == 0
    assert type(model[0]) is nn.Linear
