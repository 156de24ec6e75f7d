"""The tokenizer of a GGUF file, saved and loaded again as the engine loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
from transformers import AutoTokenizer

from batchgen.errors import UnsupportedModel
from batchgen.models.gguf.header import read_gguf_header
from batchgen.models.gguf.tokens import TOKENS, load_tokenizer
from tests.unit.models.gguf_files import tokens

PIECES = ["a", "b", "▁", "▁a", "ab", "▁ab"]
SENTENCEPIECE = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *PIECES]


def write(path: Path, model: str, keys: dict[str, Any], architecture: str = "llama") -> Path:
    """Write a file that holds a tokenizer and nothing else."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model(model)
    if model == "gpt2":
        writer.add_token_list(tokens())
        writer.add_token_types([3, 3, 3] + [1] * (len(tokens()) - 3))
        writer.add_token_merges(["Ġ Ġ"])  # "ab" is a word that no merge makes
    else:
        writer.add_token_list(SENTENCEPIECE)
        writer.add_token_scores([-float(n) for n in range(len(SENTENCEPIECE))])
        writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(PIECES))
    for key, value in keys.items():
        kind = {bool: "bool", int: "uint32", str: "string"}[type(value)]
        getattr(writer, f"add_{kind}")(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def loaded(source: Path) -> Any:
    """Return the tokenizer of a file as it is loaded from the folder it is saved in."""
    tokenizer = load_tokenizer(source, read_gguf_header(source, texts=frozenset({TOKENS})))
    tokenizer.save_pretrained(source.parent / "saved")
    return AutoTokenizer.from_pretrained(source.parent / "saved")


SPM_IDS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}


@pytest.mark.parametrize(
    ("keys", "pieces"),
    [
        ({}, ["<s>", "▁ab"]),
        ({"add_bos_token": True, "add_space_prefix": True}, ["<s>", "▁ab"]),
        ({"add_bos_token": False}, ["▁ab"]),
        ({"add_space_prefix": False}, ["<s>", "ab"]),
        ({"add_eos_token": True, "add_space_prefix": False}, ["<s>", "ab", "</s>"]),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_a_text_begins_and_ends_as_the_file_says(
    tmp_path: Path, keys: dict[str, Any], pieces: list[str], architecture: str
) -> None:
    found = loaded(write(tmp_path / "m.gguf", "llama", SPM_IDS | keys, architecture))
    ids = found("ab")["input_ids"]
    assert found.convert_ids_to_tokens(ids) == pieces
    assert found.decode(ids, skip_special_tokens=True) == "ab"


BYTE_IDS = {"bos_token_id": 1, "eos_token_id": 0}


@pytest.mark.parametrize(
    ("keys", "pieces"),
    [
        ({"pre": "smollm"}, ["a", "b", "ĠĠ", "1", "2"]),
        ({"pre": "smollm", "add_bos_token": True}, ["<|im_start|>", "a", "b", "ĠĠ", "1", "2"]),
        # a word of the vocabulary is one token there, and a text begins with BOS
        ({"pre": "llama-bpe"}, ["<|im_start|>", "ab", "Ġ", "Ġ", "1", "2"]),
        ({"pre": "llama-bpe", "add_bos_token": False}, ["ab", "Ġ", "Ġ", "1", "2"]),
        ({"pre": "qwen2"}, ["a", "b", "Ġ", "Ġ", "1", "2"]),
    ],
)
def test_bytes_are_split_as_their_merges_were_learned(
    tmp_path: Path, keys: dict[str, Any], pieces: list[str]
) -> None:
    found = loaded(write(tmp_path / "m.gguf", "gpt2", BYTE_IDS | keys))
    assert found.convert_ids_to_tokens(found("ab  12")["input_ids"]) == pieces


@pytest.mark.parametrize(
    ("model", "keys", "named"),
    [
        ("gpt2", {"pre": "klingon"}, "'klingon' is not known"),
        ("gpt2", {"pre": "smollm", "add_space_prefix": True}, "add_space_prefix = True"),
        ("gpt2", {"pre": "smollm", "add_bos_token": True}, "add_bos_token is set.*no bos_token_id"),
        ("gpt2", {"pre": "llama-bpe"}, "add_bos_token is set.*no bos_token_id"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    tmp_path: Path, model: str, keys: dict[str, Any], named: str
) -> None:
    source = write(tmp_path / "m.gguf", model, keys)
    with pytest.raises(UnsupportedModel, match=named):
        loaded(source)
