"""Each family that GGUF files are read for, beside the transformers model it was written from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from batchgen.errors import UnsupportedModel
from batchgen.models.gguf.convert import convert
from batchgen.models.gguf.families import FAMILIES
from batchgen.models.gguf.rope import LLAMA3
from tests.support.tiny_models import randomise
from tests.unit.models.gguf_files import Weights, interleave, tokens, write_gguf

SIZES: dict[str, Any] = {
    "vocab_size": len(tokens()),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
KEYS: dict[str, Any] = {
    "block_count": 2,
    "context_length": 128,
    "embedding_length": 32,
    "feed_forward_length": 48,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "rope.dimension_count": 8,
    "rope.freq_base": 500.0,
    "vocab_size": len(tokens()),
}
THETA = {"rope_theta": 500.0, "rope_type": "default"}
RMS = {"attention.layer_norm_rms_epsilon": 0.01}
NORM = {"attention.layer_norm_epsilon": 0.01}
WIDE = {"attention.key_length": 16, "attention.value_length": 16, "rope.dimension_count": 16}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MOE_KEYS = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 16}

# {case: (architecture, values of the transformers model, keys of the file)}
Case = tuple[str, dict[str, Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "llama": ("llama", {"rms_norm_eps": 0.01, "rope_parameters": THETA}, RMS),
    "llama of wide heads, tied": (
        "llama",
        {
            "rms_norm_eps": 0.01,
            "head_dim": 16,
            "tie_word_embeddings": True,
            "rope_parameters": THETA,
        },
        {**RMS, **WIDE},
    ),
    "llama with every bias": (
        "llama",
        {
            "rms_norm_eps": 0.01,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": THETA,
        },
        RMS,
    ),
    "linear": (
        "llama",
        {"rms_norm_eps": 0.01, "rope_parameters": {**THETA, "rope_type": "linear", "factor": 4.0}},
        {**RMS, "rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "a factor without a type": (
        "llama",
        {"rms_norm_eps": 0.01, "rope_parameters": {**THETA, "rope_type": "linear", "factor": 4.0}},
        {**RMS, "rope.scaling.factor": 4.0},
    ),
    "yarn": (
        "qwen2",
        {
            "rms_norm_eps": 0.01,
            "rope_parameters": {
                **THETA,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
        {
            **RMS,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32,
        },
    ),
    "qwen2": ("qwen2", {"rms_norm_eps": 0.01, "rope_parameters": THETA}, RMS),
    "qwen3": (
        "qwen3",
        {"rms_norm_eps": 0.01, "head_dim": 16, "rope_parameters": THETA},
        {**RMS, **WIDE},
    ),
    "qwen2moe": (
        "qwen2moe",
        {
            "rms_norm_eps": 0.01,
            "rope_parameters": THETA,
            "shared_expert_intermediate_size": 24,
            "norm_topk_prob": False,
            **MOE,
        },
        {**RMS, **MOE_KEYS, "expert_shared_feed_forward_length": 24},
    ),
    "qwen3moe": (
        "qwen3moe",
        {
            "rms_norm_eps": 0.01,
            "head_dim": 16,
            "rope_parameters": THETA,
            "norm_topk_prob": True,
            **MOE,
        },
        {**RMS, **MOE_KEYS, **WIDE},
    ),
    "phi3 with a window, a part of each head turned": (
        "phi3",
        {
            "rms_norm_eps": 0.01,
            "sliding_window": 20,
            "rope_parameters": {**THETA, "partial_rotary_factor": 0.5},
        },
        {**RMS, "attention.sliding_window": 20, "rope.dimension_count": 4},
    ),
    "longrope": (
        "phi3",
        {
            "rms_norm_eps": 0.01,
            "sliding_window": None,
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                **THETA,
                "rope_type": "longrope",
                "short_factor": [1.0, 1.5, 2.0, 2.5],
                "long_factor": [2.0, 3.0, 4.0, 5.0],
                "original_max_position_embeddings": 64,
                "attention_factor": 1.25,
            },
        },
        {
            **RMS,
            "attention.sliding_window": 0,
            "rope.scaling.attn_factor": 1.25,
            "rope.scaling.original_context_length": 64,
        },
    ),
    "gemma": (
        "gemma",
        {
            "rms_norm_eps": 0.01,
            "head_dim": 16,
            "rope_parameters": THETA,
            "tie_word_embeddings": True,
        },
        {**RMS, **WIDE},
    ),
    "gemma2": (
        "gemma2",
        {
            "rms_norm_eps": 0.01,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "rope_parameters": THETA,
            "tie_word_embeddings": True,
            "sliding_window": 20,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        {
            **RMS,
            **WIDE,
            "attention.sliding_window": 20,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        "gemma3",
        {
            "rms_norm_eps": 0.01,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "rope_parameters": {
                "full_attention": {**THETA, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
            },
            "tie_word_embeddings": True,
            "sliding_window": 20,
            "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
            "num_hidden_layers": 6,
        },
        {
            **RMS,
            **WIDE,
            "block_count": 6,
            "attention.sliding_window": 20,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
    ),
    "granite": (
        "granite",
        {
            "rms_norm_eps": 0.01,
            "rope_parameters": THETA,
            "attention_multiplier": 0.25,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
        },
        {
            **RMS,
            "attention.scale": 0.25,
            "embedding_scale": 3.0,
            "residual_scale": 0.5,
            "logit_scale": 2.0,
        },
    ),
    "starcoder2": (
        "starcoder2",
        {"norm_epsilon": 0.01, "use_bias": True, "rope_parameters": THETA},
        NORM,
    ),
    "stablelm": (
        "stablelm",
        {
            "layer_norm_eps": 0.01,
            "use_qkv_bias": True,
            "rope_parameters": {**THETA, "partial_rotary_factor": 0.25},
        },
        {**NORM, "rope.dimension_count": 2, "use_parallel_residual": False},
    ),
    "nemotron": (
        "nemotron",
        {"norm_eps": 0.01, "rope_parameters": {**THETA, "partial_rotary_factor": 0.5}},
        {**NORM, "rope.dimension_count": 4},
    ),
    "gpt2": ("gpt2", {"layer_norm_epsilon": 0.01, "n_inner": 48}, NORM),
}
# Layouts in which llama.cpp's converter differs from transformers.
PAIRED = {"llama", "granite"}
CENTRED = {"gemma", "gemma2", "gemma3", "nemotron"}
STACKED = "mlp.experts.gate_up_proj"


def network(case: Case, **values: Any) -> PreTrainedModel:
    """Return a random model of the case."""
    config = AutoConfig.for_model(
        FAMILIES[case[0]].model_type, **(SIZES | case[1] | values), attn_implementation="eager"
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).float().eval()
    randomise(model, 7)
    return model


def tensors_of(model: PreTrainedModel, architecture: str) -> Weights:
    """Return the model's parameters as llama.cpp's converter writes them, named by its library."""
    number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    found: Weights = {}
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        if name.endswith(STACKED):
            stem = names.get_name(name.removesuffix(STACKED) + "mlp.experts.gate_proj")
            up = names.get_name(name.removesuffix(STACKED) + "mlp.experts.up_proj")
            half = array.shape[1] // 2
            found |= {f"{stem}.weight": array[:, :half], f"{up}.weight": array[:, half:]}
            continue
        stem, kind = (
            name.rsplit(".", 1) if name.endswith((".weight", ".bias")) else (name, "weight")
        )
        found[f"{names.get_name(stem)}.{kind}"] = laid_out(array, name, architecture, model)
    return found


def laid_out(array: Any, name: str, architecture: str, model: PreTrainedModel) -> Any:
    """Return a parameter in the layout of llama.cpp."""
    config = model.config
    if architecture in PAIRED and ("q_proj" in name or "k_proj" in name):
        return interleave(
            array, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        )
    if architecture in CENTRED and name.endswith("norm.weight"):
        return array + np.float32(1)
    if architecture == "gpt2" and array.ndim == 2 and ".h." in name:
        return array.T
    return array[0] if "shared_expert_gate" in name else array


def write(path: Path, case: Case, model: PreTrainedModel, **keys: Any) -> Path:
    """Write the model as a GGUF file."""
    tensors = tensors_of(model, case[0])
    rope = case[1].get("rope_parameters", {})
    for length in ("long", "short"):
        if factors := rope.get(f"{length}_factor"):
            tensors[f"rope_factors_{length}.weight"] = np.array(factors, np.float32)
    merged = KEYS | case[2] | keys
    if case[0] == "gpt2":
        del merged["attention.head_count_kv"]
        merged = {key: value for key, value in merged.items() if not key.startswith("rope.")}
    return write_gguf(path, case[0], merged, tensors, split="smollm")


def logits(model: PreTrainedModel) -> torch.Tensor:
    """Return what the model computes for a hundred tokens."""
    ids = torch.arange(3, 103).reshape(1, -1) * 7 % len(tokens())
    with torch.inference_mode():
        result: torch.Tensor = model(ids).logits
    return result


def imported(source: Path) -> PreTrainedModel:
    """Return the model that the converter makes of a file."""
    target = source.with_suffix("")
    target.mkdir()
    convert(source, target)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        target, attn_implementation="eager"
    )
    return model.eval()


def test_every_family_has_a_case() -> None:
    assert {case[0] for case in CASES.values()} == FAMILIES.keys()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_computes_what_its_transformers_model_does(tmp_path: Path, case: Case) -> None:
    model = network(case)
    found = imported(write(tmp_path / "m.gguf", case, model))
    torch.testing.assert_close(logits(found), logits(model), rtol=1e-4, atol=1e-4)
    assert found.config.model_type == model.config.model_type


LLAMA = CASES["llama"]
PARAMETERS = {**THETA, "rope_theta": 500_000.0, "rope_type": "llama3", "factor": 8.0}


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        ({**PARAMETERS, **LLAMA3}, "llama3"),
        ({**PARAMETERS, **LLAMA3, "original_max_position_embeddings": 64}, "longrope"),
    ],
)
def test_frequencies_of_a_files_own_are_kept(
    tmp_path: Path, parameters: dict[str, Any], kind: str
) -> None:
    case = (*LLAMA[:2], {**LLAMA[2], "rope.freq_base": 500_000.0, **WIDE})
    model = network(LLAMA, rope_parameters=parameters, head_dim=16)
    turned: Any = model.model.rotary_emb
    plain = 500_000.0 ** -(np.arange(0, 16, 2) / 16)
    tensors = tensors_of(model, "llama") | {
        "rope_freqs.weight": (plain / turned.inv_freq.numpy()).astype(np.float32)
    }
    source = write_gguf(tmp_path / "m.gguf", "llama", KEYS | case[2], tensors, split="smollm")
    found = imported(source)
    torch.testing.assert_close(logits(found), logits(model), rtol=1e-4, atol=1e-4)
    assert found.config.rope_parameters["rope_type"] == kind


def test_biases_of_query_key_and_value_alone_are_kept(tmp_path: Path) -> None:
    model = network(CASES["llama with every bias"], mlp_bias=False)
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.bias)
    tensors = tensors_of(model, "llama")
    held = {name: array for name, array in tensors.items() if "attn_output.bias" not in name}
    assert len(held) == len(tensors) - 2
    source = write_gguf(tmp_path / "m.gguf", "llama", KEYS | RMS, held, split="smollm")
    torch.testing.assert_close(logits(imported(source)), logits(model), rtol=1e-4, atol=1e-4)


QWEN = CASES["qwen2"]


@pytest.mark.parametrize("lost", ["blk.1.attn_q.bias", "blk.1.ffn_up.weight", "output_norm.weight"])
def test_a_weight_that_is_not_there_is_named(tmp_path: Path, lost: str) -> None:
    tensors = tensors_of(network(QWEN), "qwen2")
    del tensors[lost]
    source = write_gguf(tmp_path / "m.gguf", "qwen2", KEYS | RMS, tensors, split="smollm")
    with pytest.raises(UnsupportedModel, match=r"it lacks weights: model\.\S+\."):
        imported(source)


@pytest.mark.parametrize("extra", ["blk.0.attn_sinks.weight", "blk.0.attn_q.scale", "cls.weight"])
def test_a_tensor_that_is_not_known_is_named(tmp_path: Path, extra: str) -> None:
    tensors = tensors_of(network(QWEN), "qwen2") | {extra: np.ones(4, np.float32)}
    source = write_gguf(tmp_path / "m.gguf", "qwen2", KEYS | RMS, tensors, split="smollm")
    with pytest.raises(UnsupportedModel, match=extra):
        imported(source)


def test_a_tensor_that_the_model_does_not_have_is_named(tmp_path: Path) -> None:
    extra = {"blk.1.ffn_up.bias": np.ones(48, np.float32)}
    tensors = tensors_of(network(QWEN), "qwen2") | extra
    source = write_gguf(tmp_path / "m.gguf", "qwen2", KEYS | RMS, tensors, split="smollm")
    with pytest.raises(UnsupportedModel, match=r"layers\.1\.mlp\.up_proj\.bias"):
        imported(source)
