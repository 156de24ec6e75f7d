"""A model must pass the probe before the engine serves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batchgen.engine.network.loading import load_network
from batchgen.engine.network.probe import ProbedLayer, probe
from batchgen.errors import UnsupportedModel
from tests.support.tiny_models import VOCABULARY
from tests.unit.engine.conftest import Models

CPU = torch.device("cpu")


def network_of(path: Path) -> Any:
    return load_network(path, dtype=torch.float32, device=CPU)


def probed(network: nn.Module) -> list[ProbedLayer]:
    return probe(network, vocabulary=VOCABULARY, longest=256)


def test_shapes_are_taken_from_what_the_layers_did(models: Models) -> None:
    layers = probed(network_of(models("gemma2")))
    assert [layer.name for layer in layers] == [f"model.layers.{i}.self_attn" for i in (0, 1)]
    shape = layers[0].shape
    assert (shape.query_heads, shape.kv_heads, shape.group) == (4, 2, 2)
    assert (shape.window, shape.softcap) == (20, 2.0)
    assert layers[1].shape.window is None


def test_keys_and_values_may_differ_in_width(models: Models) -> None:
    shape = probed(network_of(models("deepseek_v3")))[0].shape
    assert (shape.key_width, shape.value_width) == (16, 12)


def test_sinks_are_seen(models: Models) -> None:
    sinks = probed(network_of(models("gpt_oss")))[0].shape.sinks
    assert sinks is not None and sinks.shape == (4,)


@pytest.mark.parametrize("family", ["falcon", "bloom", "mpt", "gptj", "codegen"])
def test_attention_that_bypasses_the_interface_is_refused(models: Models, family: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"0\.(self_attention|attn): .*interface"):
        probed(network_of(models(family)))


@pytest.mark.parametrize(
    ("family", "kind"),
    [("llama4_text", "chunked_attention"), ("qwen3_next", "linear_attention"), ("lfm2", "conv")],
)
def test_layers_with_state_or_masks_of_their_own_are_refused(
    models: Models, family: str, kind: str
) -> None:
    with pytest.raises(UnsupportedModel, match=f"layer 0: it is a {kind} layer"):
        probed(network_of(models(family)))


def test_a_layer_that_does_not_attend_is_refused(llama: Path) -> None:
    network = network_of(llama)
    layer = network.model.layers[1]
    layer.self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(UnsupportedModel, match="layer 1: it does not call the attention interface"):
        probed(network)


def test_a_layer_that_attends_twice_is_refused(llama: Path) -> None:
    network = network_of(llama)
    layer = network.model.layers[0]
    once = layer.self_attn.forward

    def twice(**arguments: Any) -> Any:
        once(**arguments)
        return once(**arguments)

    layer.self_attn.forward = twice
    with pytest.raises(UnsupportedModel, match=r"layers\.0\.self_attn: it attends 2 times"):
        probed(network)


@pytest.mark.parametrize(
    ("option", "reason"),
    [("attention_mask", "masks its attention itself"), ("position_bias", "adds to the scores")],
)
def test_what_no_kernel_serves_is_refused_even_where_it_changes_nothing(
    llama: Path, option: str, reason: str
) -> None:
    network = network_of(llama)
    layer = network.model.layers[1]
    forward = layer.self_attn.forward

    def optional(**arguments: Any) -> Any:
        return forward(**{**arguments, option: torch.zeros(1, 1, 1, 1)})

    layer.self_attn.forward = optional
    with pytest.raises(UnsupportedModel, match=rf"layers\.1\.self_attn: it {reason}"):
        probed(network)


class Smear(nn.Module):
    """Lets every token see the mean of all tokens of the forward: state outside of attention."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        smeared: Tensor = self.inner(hidden + hidden.mean(dim=1, keepdim=True))
        return smeared


def test_state_outside_of_attention_is_refused_where_it_first_shows(llama: Path) -> None:
    network = network_of(llama)
    network.model.layers[1].input_layernorm = Smear(network.model.layers[1].input_layernorm)
    with pytest.raises(UnsupportedModel, match=r"layers\.1\.self_attn: its output differs"):
        probed(network)


def test_state_behind_the_last_attention_is_refused_too(llama: Path) -> None:
    network = network_of(llama)
    network.model.norm = Smear(network.model.norm)
    with pytest.raises(UnsupportedModel, match="the head: the logits differ"):
        probed(network)


def test_a_window_that_only_the_mask_knew_is_refused(models: Models) -> None:
    network = network_of(models("gemma2"))
    network.model.layers[0].self_attn.sliding_window = None
    with pytest.raises(UnsupportedModel, match=r"layers\.0\.self_attn: its sliding window"):
        probed(network)


def test_a_window_that_only_the_cache_knew_is_refused(llama: Path) -> None:
    network = network_of(llama)
    network.config.sliding_window = 256  # as long as a row can be
    probed(network)
    network.config.sliding_window = 255
    with pytest.raises(UnsupportedModel, match=r"layers\.0\.self_attn: its sliding window"):
        probed(network)


def with_forward(network: Any, change: Callable[..., Any]) -> Any:
    """Return `network` with `change` between a call and its forward."""
    forward = network.forward
    network.forward = lambda **arguments: change(forward, **arguments)
    return network


def every_row(forward: Any, *, logits_to_keep: Tensor, **arguments: Any) -> Any:
    return forward(**arguments)


def last_rows(forward: Any, *, logits_to_keep: Tensor, **arguments: Any) -> Any:
    return forward(**arguments, logits_to_keep=len(logits_to_keep))


@pytest.mark.parametrize(
    ("change", "reason"),
    [(every_row, "does not choose the rows"), (last_rows, "logits differ|output differs")],
)
def test_a_model_that_does_not_choose_rows_is_refused(
    llama: Path, change: Callable[..., Any], reason: str
) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        probed(with_forward(network_of(llama), change))


@pytest.mark.parametrize("threshold", [100, 255])
def test_positions_far_on_are_asked_beside_those_at_the_start(llama: Path, threshold: int) -> None:
    network = network_of(llama)
    rotate = network.model.rotary_emb.forward

    def stretched(rows: Tensor, position_ids: Tensor) -> Any:
        """Change the rotations of all, where one position is beyond the threshold."""
        return rotate(rows, position_ids * (2 if position_ids.max() >= threshold else 1))

    network.model.rotary_emb.forward = stretched
    network.config.original_context = 100
    with pytest.raises(UnsupportedModel, match="output differs"):
        probed(network)


def test_a_context_that_is_longer_than_the_models_tables_is_refused(models: Models) -> None:
    network = network_of(models("gpt2"))
    probe(network, vocabulary=VOCABULARY, longest=256)
    with pytest.raises(UnsupportedModel, match="forward at position 259 fails: IndexError"):
        probe(network, vocabulary=VOCABULARY, longest=300)


def test_a_model_that_takes_no_positions_is_refused(llama: Path) -> None:
    network = network_of(llama)
    network.forward = lambda input_ids: None
    with pytest.raises(UnsupportedModel, match="a forward at position 1 fails: TypeError"):
        probed(network)
