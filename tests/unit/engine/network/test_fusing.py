"""Layers swapped for those of the C++ file: which ones, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from batchgen.engine.network import fusing, model
from batchgen.engine.network.attention import HANDLER, forward
from batchgen.engine.network.device import ComputeType
from batchgen.engine.network.fusing import fuse
from batchgen.engine.network.loading import load_network
from batchgen.engine.network.probe import ProbedLayer, probe
from batchgen.errors import InvalidParameter
from batchgen_kernels.cpu.decoder import DecoderLayer
from batchgen_kernels.cpu.linear import PackedLinear
from tests.support.tiny_models import VOCABULARY, tiny_model
from tests.unit.engine.conftest import Models, make_engine, request, run, tokens_of

CONTEXT = 256
# Two layers each.
FUSED = {"granite", "llama", "mistral", "qwen2", "qwen3"}
UNFUSED = {"phi3", "gemma2", "gemma3_text", "cohere", "olmo2", "gpt2", "stablelm", "ministral3"}


def load(path: Path) -> tuple[Any, list[ProbedLayer]]:
    network: Any = load_network(path, dtype=torch.float32, device=torch.device("cpu"))
    return network, probe(network, vocabulary=VOCABULARY, longest=CONTEXT)


def logits(network: Any, layers: list[ProbedLayer]) -> Tensor:
    """Return the logits of one sequence whose attention is plain torch."""
    for layer in layers:
        setattr(layer.module, HANDLER, fusing._causal)
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, 23)
    with torch.inference_mode():
        return forward(network, tokens, np.arange(23), np.arange(23), device=torch.device("cpu"))


def check_fusing(path: Path, expected: int) -> Any:
    network, layers = load(path)
    before = logits(network, layers)
    assert fuse(network, layers, longest=CONTEXT) == expected
    assert sum(isinstance(module, DecoderLayer) for module in network.modules()) == expected
    after = logits(network, layers)
    assert float((after - before).abs().max()) < 1e-5 * float(before.abs().max())
    return network


@pytest.mark.parametrize("family", sorted(FUSED | UNFUSED))
def test_layers_of_the_common_shape_are_fused_and_all_compute_the_same(
    models: Models, family: str
) -> None:
    check_fusing(models(family), 2 if family in FUSED else 0)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"hidden_act": "gelu"}, 0),
        ({"attention_bias": True, "mlp_bias": True}, 2),
        ({"hidden_size": 40, "head_dim": 12, "intermediate_size": 50}, 2),
        ({"num_key_value_heads": 4}, 2),
        ({"tie_word_embeddings": True}, 2),
        ({"rms_norm_eps": 0.5}, 2),
    ],
)
def test_what_a_config_changes_is_found_out(
    tmp_path: Path, overrides: dict[str, Any], expected: int
) -> None:
    check_fusing(tiny_model(tmp_path, "llama", **overrides), expected)


def test_a_multiplier_that_no_part_shows_is_found_out(tmp_path: Path) -> None:
    check_fusing(tiny_model(tmp_path, "granite", residual_multiplier=0.9), 0)


@pytest.mark.parametrize(("longest", "expected"), [(32, 2), (37, 0), (CONTEXT, 0)])
def test_a_layer_that_changes_at_a_position_stays_where_a_row_can_reach_it(
    models: Models, longest: int, expected: int
) -> None:
    network, layers = load(models("ministral3"))
    assert fuse(network, layers, longest=longest) == expected


def test_a_layer_that_changes_where_no_config_says_stays(models: Models) -> None:
    network, layers = load(models("llama"))
    first = network.model.layers[0]
    plain = first.self_attn.q_proj.forward

    def late(hidden: Tensor) -> Tensor:
        """Scale the queries of the last positions, which a layer sees by `see`."""
        scaled: Tensor = plain(hidden) * (1 + 0.1 * first.self_attn.late)
        return scaled

    def see(_: nn.Module, __: Any, kwargs: Any) -> None:
        first.self_attn.late = (kwargs["position_ids"] > CONTEXT - 4)[..., None]

    first.register_forward_pre_hook(see, with_kwargs=True)
    first.self_attn.q_proj.forward = late
    assert fuse(network, layers, longest=CONTEXT) == 1
    assert network.model.layers[0] is first


def test_a_layer_that_does_something_else_stays(models: Models) -> None:
    network, layers = load(models("llama"))

    class Doubled(nn.Module):
        def __init__(self, norm: Any) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon
            self.norm = [norm]

        def forward(self, rows: Tensor) -> Tensor:
            doubled: Tensor = 2 * self.norm[0](rows)
            return doubled

    first = network.model.layers[0]
    first.post_attention_layernorm = Doubled(first.post_attention_layernorm)
    before = logits(network, layers)
    assert fuse(network, layers, longest=CONTEXT) == 1
    assert network.model.layers[0] is first
    assert isinstance(first.mlp.down_proj, PackedLinear)
    assert isinstance(network.model.layers[1], DecoderLayer)
    after = logits(network, layers)
    assert float((after - before).abs().max()) < 1e-5 * float(before.abs().max())


def test_the_weights_do_not_stay_twice(models: Models) -> None:
    network, layers = load(models("llama"))
    parts = [layer.module for layer in layers]
    embedding = network.get_input_embeddings().weight.numel()
    fuse(network, layers, longest=CONTEXT)
    left = [module for part in parts for module in part.modules() if isinstance(module, nn.Linear)]
    assert len(left) == 8
    assert sum(linear.weight.numel() for linear in left) == 0
    assert sum(p.numel() for p in network.parameters()) < 1.1 * embedding


def test_without_a_library_nothing_changes(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "load", lambda: None)
    network, layers = load(models("llama"))
    before = list(network.modules())
    assert fuse(network, layers, longest=CONTEXT) == 0
    assert list(network.modules()) == before


@pytest.mark.parametrize(("kernels", "expected"), [("auto", 2), ("cpu", 2), ("reference", 0)])
def test_the_reference_is_plain_torch(models: Models, kernels: str, expected: int) -> None:
    engine = make_engine(models("llama"), kernels=kernels)
    modules = list(engine.model.network.modules())
    assert sum(isinstance(module, DecoderLayer) for module in modules) == expected
    assert any(isinstance(module, PackedLinear) for module in modules) is bool(expected)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_weights_of_eight_bits_have_the_same_answers_with_all_kernels(
    models: Models, family: str
) -> None:
    def answers(**fields: Any) -> list[list[int]]:
        engine = make_engine(models(family), **fields)
        rows = [request(i, prompt, max_tokens=12) for i, prompt in enumerate(["one", "and two"])]
        return [tokens_of(answer) for _, answer in sorted(run(engine, *rows).items())]

    engine = make_engine(models(family), quantize="int8")
    assert engine.info.quantize == "int8"
    packed = engine.model.network
    kinds = {buffer.dtype for buffer in packed.buffers()}
    assert kinds & {torch.int8, torch.uint8}
    assert answers(quantize="int8") == answers(quantize="int8", kernels="reference")


def test_who_asks_for_eight_bits_is_told_that_plain_torch_has_more(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notes(**fields: Any) -> list[str]:
        return make_engine(models("llama"), quantize="int8", **fields).model.notes

    assert notes() == []
    assert notes(kernels="reference") == [model.WIDE]
    for module in (model, fusing):
        monkeypatch.setattr(module, "load", lambda: None)
    assert model.WIDE in notes()


def test_weights_of_eight_bits_are_for_float32(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = ComputeType(dtype=torch.bfloat16)
    monkeypatch.setattr(model, "resolve_dtype", lambda *_: half)
    with pytest.raises(InvalidParameter, match="float32 on a CPU") as caught:
        make_engine(models("llama"), quantize="int8", dtype="bfloat16")
    assert caught.value.param == "quantize"
