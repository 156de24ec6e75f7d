"""Each key of a GGUF file is converted, known to change nothing, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchgen.errors import UnsupportedModel
from batchgen.models.gguf.config import read_config
from batchgen.models.gguf.header import read_gguf_header
from batchgen.models.gguf.tensors import read_factors
from batchgen.models.gguf.tokens import TOKENS, end_tokens
from tests.unit.models.gguf_files import (
    LLAMA_KEYS,
    SPECIALS,
    Weights,
    llama_tensors,
    llama_weights,
    tokens,
    write_gguf,
    write_llama,
)


def read(path: Path, keys: dict[str, Any], tensors: Weights | None = None) -> dict[str, Any]:
    """Return the configuration of a llama with keys and tensors of this kind."""
    source = write_llama(path / "m.gguf", llama_weights(), keys=keys, tensors=tensors)
    header = read_gguf_header(source, texts=frozenset({TOKENS}))
    return read_config(header, read_factors(source, header))


@pytest.mark.parametrize(
    "keys",
    [
        {
            "General.quantization_version": 2,
            "General.sampling.temp": 0.5,
            "General.type": "model",
            "Mradermacher.quantize_version": "2",
            "Quantize.imatrix.file": "calibration.dat",
            "Split.count": 1,
            "Tokenizer.chat_template.tool_use": "{{ tools }}",
            "Tokenizer.ggml.fim_pre_token_id": 7,
            "Tokenizer.ggml.remove_extra_whitespaces": False,
        },
        {"attention.causal": True, "expert_count": 0, "rope.scaling.finetuned": True},
        {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 1.0},
        {"attention.head_count_kv": [2, 2], "feed_forward_length": [64, 64]},
    ],
)
def test_keys_that_say_nothing_change_nothing(tmp_path: Path, keys: dict[str, Any]) -> None:
    (tmp_path / "plain").mkdir()
    assert read(tmp_path, keys) == read(tmp_path / "plain", {})


ONES = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"some.new_thing": 1}, r"llama\.some\.new_thing is not known"),
        ({"Some.new.thing": 1}, r"some\.new\.thing is not known"),
        ({"attention.sliding_window": 16}, r"attention\.sliding_window = 16"),
        ({"expert_count": 8}, r"expert_count = 8"),
        ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"logit_scale": 2.0}, "logit_scale"),
        ({"embedding_scale": 2.0}, "embedding_scale"),
        ({"attention.scale": 0.5}, r"attention\.scale"),
        ({"attention.causal": False}, r"attention\.causal = False"),
        ({"attention.value_length": 16}, "values of 16 numbers"),
        ({"rope.dimension_count": 4}, r"rope\.dimension_count = 4"),
        ({"rope.dimension_sections": [2, 2, 0, 0]}, r"rope\.dimension_sections"),
        ({"rope.scaling.type": "klingon"}, "'klingon' is not known"),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, "original_context_length"),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.yarn_attn_factor": 2.0},
            r"yarn_attn_factor = 2\.0",
        ),
        ({"rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log_multiplier"),
        ({"rope.scaling.attn_factor": 1.5}, r"scaling\.attn_factor = 1\.5"),
        ({"attention.head_count_kv": [2, 4]}, r"head_count_kv is not the same in each layer"),
        ({"vocab_size": 300}, "vocab_size 300 and 261 rows"),
        ({"block_count": 3}, "block_count is 3, and it has tensors of 2 blocks"),
        ({"block_count": 1}, "block_count is 1, and it has tensors of 2 blocks"),
        ({"context_length": 0}, "context_length is missing or zero"),
        ({"General.type": "adapter"}, r"general\.type = 'adapter'"),
        ({"Split.count": 3}, r"split\.count = 3"),
        ({"Tokenizer.ggml.precompiled_charsmap": [1, 2]}, "precompiled_charsmap"),
        ({"Tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces = True"),
    ],
)
def test_keys_that_would_change_answers_are_refused_by_name(
    tmp_path: Path, keys: dict[str, Any], named: str
) -> None:
    with pytest.raises(UnsupportedModel, match=named):
        read(tmp_path, keys)


@pytest.mark.parametrize(
    "lost",
    ["context_length", "feed_forward_length", "attention.layer_norm_rms_epsilon"],
)
def test_a_size_that_is_not_there_is_not_made_up(tmp_path: Path, lost: str) -> None:
    keys = {key: value for key, value in LLAMA_KEYS.items() if key != lost}
    tensors = llama_tensors(llama_weights())
    source = write_gguf(tmp_path / "m.gguf", "llama", keys, tensors, split="smollm")
    header = read_gguf_header(source, texts=frozenset({TOKENS}))
    with pytest.raises(UnsupportedModel, match=rf"llama\.{lost} is missing or zero"):
        read_config(header, {})


@pytest.mark.parametrize(
    ("keys", "tensors", "named"),
    [
        ({}, {"rope_freqs.weight": np.ones(3, np.float32)}, "rope_freqs.weight do not fit"),
        (
            {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0},
            {"rope_freqs.weight": 2 * ONES},
            r"scaling\.type = 'linear' does not go with the tensor rope_freqs",
        ),
        ({}, {"rope_factors_long.weight": ONES}, "rope_factors_short.weight together"),
    ],
)
def test_frequencies_that_do_not_fit_are_refused(
    tmp_path: Path, keys: dict[str, Any], tensors: Weights, named: str
) -> None:
    with pytest.raises(UnsupportedModel, match=named):
        read(tmp_path, keys, tensors)


def test_frequencies_of_one_are_the_usual_ones(tmp_path: Path) -> None:
    found = read(tmp_path, {}, {"rope_freqs.weight": ONES})
    assert found["rope_parameters"] == {"rope_theta": 10_000.0, "rope_type": "default"}


def test_an_unknown_architecture_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "m.gguf", llama_weights())
    source.write_bytes(source.read_bytes().replace(b"llama", b"mamba"))
    with pytest.raises(UnsupportedModel, match="'mamba'; llama, granite"):
        read_config(read_gguf_header(source), {})


def ends(path: Path, **keys: Any) -> list[int]:
    source = write_llama(path / "m.gguf", llama_weights(), keys=keys)
    return end_tokens(read_gguf_header(source, texts=frozenset({TOKENS})))


def test_an_answer_ends_at_the_ids_and_at_the_texts_that_say_so(tmp_path: Path) -> None:
    assert SPECIALS == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    keys = {
        f"Tokenizer.ggml.{name}_token_id": n for name, n in [("eos", 5), ("eot", 6), ("eom", 5)]
    }
    assert ends(tmp_path, **keys) == [5, 6, 0, 2]


def test_an_id_beyond_the_vocabulary_ends_nothing(tmp_path: Path) -> None:
    assert ends(tmp_path, **{"Tokenizer.ggml.eot_token_id": len(tokens())}) == [0, 2]
