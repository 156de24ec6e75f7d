"""The demo model as converted: what a wrong tokenizer or a lost end token would break."""

from __future__ import annotations

import json

from tokenizers import Tokenizer

from batchgen.models import ModelRecord


def test_it_is_what_its_makers_published(smollm2: ModelRecord) -> None:
    assert smollm2.architecture == "LlamaForCausalLM"
    assert smollm2.max_length == 8192
    assert smollm2.dtype == "float32"
    assert "You are a helpful AI assistant" in (smollm2.path / "chat_template.jinja").read_text()


def test_the_assistants_turn_ends_its_answer(smollm2: ModelRecord) -> None:
    tokenizer = Tokenizer.from_file(str(smollm2.path / "tokenizer.json"))
    generation = json.loads((smollm2.path / "generation_config.json").read_text())
    ends = [tokenizer.token_to_id(text) for text in ("<|im_end|>", "<|endoftext|>")]
    assert generation["eos_token_id"] == ends == [2, 0]


def test_digits_and_blanks_are_split_as_in_training(smollm2: ModelRecord) -> None:
    tokenizer = Tokenizer.from_file(str(smollm2.path / "tokenizer.json"))
    text = "Add  12 and 7:\n\n1. 19"
    encoded = tokenizer.encode(text)
    assert encoded.tokens[:5] == ["Add", "ĠĠ", "1", "2", "Ġand"]
    assert "ĊĊ" in encoded.tokens
    assert tokenizer.decode(encoded.ids) == text
