"""Converts the metadata of a GGUF file to a transformers configuration, key by key.

converted      by the family's table, or in this file    changes the answers
NEUTRAL        accepted with values of no effect         other values would change them
SILENT         titles, licences, packing                 changes nothing
anything else  refused by name
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from batchgen.errors import UnsupportedModel
from batchgen.models.gguf.families import FAMILIES, Family
from batchgen.models.gguf.header import GgufHeader
from batchgen.models.gguf.rope import BASE, ROPE_KEYS, Factors, rope_parameters

# Keys of any family that change nothing.
SILENT = re.compile(
    r"general\.(?!architecture$|type$).*|(quantize|mradermacher)\..*|split\.(no|tensors\.count)"
    r"|tokenizer\.chat_templates?(\..+)?|tokenizer\.huggingface\.json"
    r"|tokenizer\.ggml\.(fim_\w+|prefix|suffix|middle|mask|cls|seperator)_token_id"
)
# Read in `tokens.py`.
TOKENS = re.compile(
    r"tokenizer\.ggml\.(model|pre|tokens|token_type|scores|merges|add_(bos|eos)_token"
    r"|add_space_prefix|(bos|eos|eot|eom|unknown|padding)_token_id)"
)
# {key: values that change nothing}; other values are refused.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "general.type": ("model",),
    "split.count": (0, 1),
    "tokenizer.ggml.remove_extra_whitespaces": (False,),
    "tokenizer.ggml.add_sep_token": (False,),
    "tokenizer.ggml.token_type_count": (1,),
}
# The same for keys below the family's name.
FAMILY_NEUTRAL: dict[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.sliding_window": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "leading_dense_block_count": (0,),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "tensor_data_layout": ("Meta AI original pth", "Meta AI original pth - interleaved"),
}
# Read below for every family.
OWN = frozenset({"vocab_size", "attention.key_length", "attention.value_length"})
# If these are missing, llama.cpp computes as transformers does by default.
OPTIONAL = frozenset(
    {"attention.head_count_kv", "attention.key_length", "attention.scale", "embedding_scale"}
    | {"residual_scale", "logit_scale", "attn_logit_softcapping", "final_logit_softcapping"}
)
ZERO = frozenset({"attention.sliding_window"})  # keys that may be 0, which means none
# Layers of the largest model, which scales queries by hidden size / heads, not by the head width.
LARGEST = {"gemma2": 46, "gemma3": 62}
MAX_LAYERS = 1_024


def read_config(header: GgufHeader, factors: dict[str, Factors]) -> dict[str, Any]:
    """Return the values of a transformers configuration; raise UnsupportedModel.

    Every key is converted, or known to change nothing, or refused by its name. `factors` are
    {name: tensor that divides rotary frequencies}.
    """
    family = family_of(header)
    _check_keys(header, family)
    values: dict[str, Any] = dict(family.fixed)
    for key, name in family.keys.items():
        if (value := _value(header, key)) is not None:
            values[name] = value
    values |= {flag: f"blk.0.{tensor}" in header.tensors for flag, tensor in family.flags.items()}
    values["vocab_size"] = _vocabulary(header)
    values["tie_word_embeddings"] = "output.weight" not in header.tensors
    _check_sizes(header, family, values)
    if family.rotary:
        values |= _heads(header, family, values)
        values |= _scales(header, values)
        values |= _rotary(header, factors, family, values)
    return values | _special(header, values)


def family_of(header: GgufHeader) -> Family:
    """Return the table of the file's architecture; raise UnsupportedModel if there is none."""
    if header.architecture not in FAMILIES:
        raise UnsupportedModel(
            f"general.architecture is {header.architecture!r}; {', '.join(FAMILIES)} can be "
            "converted"
        )
    return FAMILIES[header.architecture]


def _check_keys(header: GgufHeader, family: Family) -> None:
    prefix = f"{header.architecture}."
    for key, value in header.metadata.items():
        own = key.removeprefix(prefix) if key.startswith(prefix) else None
        if key == "general.architecture" or SILENT.fullmatch(key) or TOKENS.fullmatch(key):
            continue
        if own is not None and (own in family.keys or own in OWN or own in _extra(header, family)):
            continue
        neutral = NEUTRAL.get(key) if own is None else FAMILY_NEUTRAL.get(own)
        if neutral is None:
            raise UnsupportedModel(f"its key {key} is not known here and may change the answers")
        if value not in neutral:
            raise UnsupportedModel(f"its key {key} = {value!r} cannot be converted")


def _extra(header: GgufHeader, family: Family) -> frozenset[str]:
    extra = ROPE_KEYS if family.rotary else frozenset()
    if header.architecture == "stablelm":
        extra |= {"use_parallel_residual"}
    if header.architecture == "gemma3":
        extra |= {"rope.freq_base_swa", "attention.sliding_window_pattern"}
    return extra


def _value(header: GgufHeader, key: str) -> Any:
    """Return the number under a key of the family, None if missing.

    An array with one number per layer is accepted if all are equal.
    """
    name = f"{header.architecture}.{key}"
    if name not in header.metadata:
        return None
    value = header.metadata[name]
    if isinstance(value, tuple) and value and len(set(value)) == 1:
        value = value[0]
    if isinstance(value, float):  # the shortest float32 text: 1e-05, not 9.999999747378752e-06
        return float(str(np.float32(value)))
    if not isinstance(value, int):
        raise UnsupportedModel(f"its key {name} is not the same in each layer")
    return value


def _vocabulary(header: GgufHeader) -> int:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise UnsupportedModel("its tensor token_embd.weight is missing")
    rows = embedding.shape[0]
    stated = header.metadata.get(f"{header.architecture}.vocab_size", rows)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    listed = len(tokens) if isinstance(tokens, tuple) else 0
    if not stated == listed == rows:
        raise UnsupportedModel(
            f"its vocabulary has {listed} tokens, vocab_size {stated} and {rows} rows of "
            "token_embd.weight: they must be one number"
        )
    return rows


def _check_sizes(header: GgufHeader, family: Family, values: dict[str, Any]) -> None:
    """Raise UnsupportedModel if a size is missing: transformers' default is another model's."""
    for key, name in family.keys.items():
        if key in OPTIONAL and name not in values:
            continue
        if name not in values or (key not in ZERO and values[name] <= 0):
            raise UnsupportedModel(f"its key {header.architecture}.{key} is missing or zero")
    layers = values[family.keys["block_count"]]
    held = {int(m[1]) for name in header.tensors if (m := re.match(r"blk\.(\d{1,6})\.", name))}
    if layers > MAX_LAYERS or held != set(range(layers)):
        raise UnsupportedModel(
            f"its block_count is {layers}, and it has tensors of {len(held)} blocks"
        )


def _heads(header: GgufHeader, family: Family, values: dict[str, Any]) -> dict[str, Any]:
    """Return the number of key heads, and the head width if the family has that key."""
    heads, width = values["num_attention_heads"], values["hidden_size"]
    own = "head_dim" in family.keys.values()
    keys = _value(header, "attention.key_length") or width // heads
    numbers = _value(header, "attention.value_length") or keys
    if numbers != keys or not (own or keys == width // heads):
        raise UnsupportedModel(f"its heads have keys of {keys} and values of {numbers} numbers")
    found = {"num_key_value_heads": values.get("num_key_value_heads", heads)}
    return found | ({"head_dim": keys} if own else {})


def _scales(header: GgufHeader, values: dict[str, Any]) -> dict[str, Any]:
    """Return values that a family needs besides its keys, from its sizes and tensors."""
    heads, width = values["num_attention_heads"], values["hidden_size"]
    found: dict[str, Any] = {}
    if header.architecture == "granite" and "attention_multiplier" not in values:
        found["attention_multiplier"] = (width // heads) ** -0.5
    if header.architecture in LARGEST:
        wide = values["num_hidden_layers"] == LARGEST[header.architecture]
        found["query_pre_attn_scalar"] = width // heads if wide else values["head_dim"]
    if header.architecture == "stablelm":
        parallel = "blk.0.ffn_norm.weight" not in header.tensors
        if header.metadata.get("stablelm.use_parallel_residual", parallel) != parallel:
            raise UnsupportedModel("its key stablelm.use_parallel_residual contradicts its tensors")
        found["use_parallel_residual"] = parallel
    if values.get("sliding_window") == 0:
        found["sliding_window"] = None
    pattern = _value(header, "attention.sliding_window_pattern")
    return found if pattern is None else found | {"sliding_window_pattern": pattern}


def _rotary(
    header: GgufHeader, factors: dict[str, Factors], family: Family, values: dict[str, Any]
) -> dict[str, Any]:
    width = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    length = values["max_position_embeddings"]
    found = rope_parameters(header, factors, width=width, length=length, partial=family.partial)
    if header.architecture == "gemma3":  # sliding-window layers have their own rotary base
        near = _value(header, "rope.freq_base_swa") or BASE
        by_kind = {"rope_type": "default", "rope_theta": near}
        return {"rope_parameters": {"full_attention": found, "sliding_attention": by_kind}}
    original = found.get("original_max_position_embeddings", length)
    extra = {"original_max_position_embeddings": original} if family.model_type == "phi3" else {}
    return {"rope_parameters": found, **extra}


def _special(header: GgufHeader, values: dict[str, Any]) -> dict[str, Any]:
    """Return the ids of special tokens, None if missing: the defaults are another model's."""
    found = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        number = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if number is not None and not (
            isinstance(number, int) and 0 <= number < values["vocab_size"]
        ):
            raise UnsupportedModel(f"its tokenizer.ggml.{key}_token_id = {number!r} is no token")
        found[f"{name}_token_id"] = number
    return found
