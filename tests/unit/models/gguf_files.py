"""Small GGUF files: a random model as llama.cpp's converter would write it, or a bare header."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Weights = dict[str, npt.NDArray[np.float32]]

HIDDEN, HEADS, KV_HEADS, FEED, LAYERS = 32, 4, 2, 64, 2
HEAD = HIDDEN // HEADS
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"

# Two merges tell the ways of splitting apart: "ĠĠ" forms only where digits stand alone.
MERGES = ["Ġ Ġ", "a b"]


def byte_alphabet() -> list[str]:
    """Return GPT-2's 256 characters, in the order of the bytes they stand for."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(byte if byte in plain else next(extra)) for byte in range(256)]


def tokens() -> list[str]:
    """Return the vocabulary: specials, bytes, merges."""
    return [*SPECIALS, *byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]


def llama_weights(seed: int = 0) -> Weights:
    """Return random weights under the names and in the layout of transformers."""
    random = np.random.default_rng(seed)

    def matrix(*shape: int) -> npt.NDArray[np.float32]:
        return random.standard_normal(shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(len(tokens()), HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", HIDDEN), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)):
            weights[f"{prefix}.self_attn.{name}_proj.weight"] = matrix(rows, HIDDEN)
        weights[f"{prefix}.self_attn.o_proj.weight"] = matrix(HIDDEN, HIDDEN)
        weights[f"{prefix}.mlp.gate_proj.weight"] = matrix(FEED, HIDDEN)
        weights[f"{prefix}.mlp.up_proj.weight"] = matrix(FEED, HIDDEN)
        weights[f"{prefix}.mlp.down_proj.weight"] = matrix(HIDDEN, FEED)
        weights[f"{prefix}.input_layernorm.weight"] = matrix(HIDDEN)
        weights[f"{prefix}.post_attention_layernorm.weight"] = matrix(HIDDEN)
    return weights | {"model.norm.weight": matrix(HIDDEN)}


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a tensor."""
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"


def interleave(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Put rotary pairs side by side, as llama.cpp keeps them: (heads, 2, half) to (…, half, 2)."""
    rows = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def add_tokenizer(writer: gguf.GGUFWriter, split: str) -> None:
    """Add the vocabulary and what llama.cpp writes beside it."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens())
    writer.add_token_types([3] * len(SPECIALS) + [1] * (len(tokens()) - len(SPECIALS)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_gguf(
    path: Path, architecture: str, keys: Mapping[str, Any], tensors: Weights, *, split: str
) -> Path:
    """Write tensors under the names they have, and keys below the architecture's name.

    A key with a capital letter, such as `Tokenizer.ggml.eot_token_id`, is the file's own.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Some Name")
    add_tokenizer(writer, split)
    for key, value in keys.items():
        name = key.lower() if key[0].isupper() else f"{architecture}.{key}"
        kind = {bool: "bool", int: "uint32", float: "float32", str: "string"}.get(
            type(value), "array"
        )
        getattr(writer, f"add_{kind}")(name, value)
    for name, weight in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


LLAMA_KEYS: dict[str, Any] = {
    "block_count": LAYERS,
    "context_length": 128,
    "embedding_length": HIDDEN,
    "feed_forward_length": FEED,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.dimension_count": HEAD,
    "rope.freq_base": 10000.0,
    "vocab_size": len(tokens()),
}


def llama_tensors(weights: Weights) -> Weights:
    """Return the weights under llama.cpp's names and in its layout."""
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}
    return {
        gguf_name(name): interleave(weight, heads[name.split(".")[-2]])
        if name.split(".")[-2] in heads
        else weight
        for name, weight in weights.items()
    }


def write_llama(
    path: Path,
    weights: Weights,
    *,
    split: str = "smollm",
    keys: Mapping[str, Any] = MappingProxyType({}),
    tensors: Weights | None = None,
) -> Path:
    """Write a llama; `split` names how text is cut before merging, keys and tensors come on top."""
    merged = LLAMA_KEYS | {"Tokenizer.ggml.eot_token_id": 2} | dict(keys)
    held = llama_tensors(weights) | (tensors or {})
    return write_gguf(path, "llama", merged, held, split=split)


def text(value: str) -> bytes:
    """Return a string as GGUF writes it: length, bytes."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def header(*entries: bytes, version: int = 3, tensors: int = 0, count: int | None = None) -> bytes:
    """Return the head of a file with these entries; `count` claims another number of them."""
    counts = struct.pack("<IQQ", version, tensors, len(entries) if count is None else count)
    return b"GGUF" + counts + b"".join(entries)


def entry(key: str, kind: int, value: bytes) -> bytes:
    """Return one metadata entry."""
    return text(key) + struct.pack("<I", kind) + value
