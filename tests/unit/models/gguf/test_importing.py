from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from batchgen.errors import ModelExists, UnsafeModel, UnsupportedModel
from batchgen.models import ModelRecord, Registry
from tests.support.permissions import mode
from tests.unit.models.gguf_files import (
    CHAT_TEMPLATE,
    Weights,
    byte_alphabet,
    llama_weights,
    write_llama,
)


@pytest.fixture(scope="session")
def weights() -> Weights:
    return llama_weights()


@pytest.fixture(scope="session")
def converted(
    weights: Weights, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> ModelRecord:
    """Return the converted model; of several xdist workers one converts, the others wait."""
    base = tmp_path_factory.getbasetemp()
    registry = Registry((base if worker_id == "master" else base.parent) / "gguf-models")
    source = write_llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf", weights)
    with suppress(ModelExists):
        registry.import_model("tiny", source)
    return registry.get("tiny")


def read(record: ModelRecord, name: str) -> dict[str, object]:
    document: dict[str, object] = json.loads((record.path / name).read_text())
    return document


def test_it_becomes_a_transformers_folder(converted: ModelRecord) -> None:
    assert converted.architecture == "LlamaForCausalLM"
    assert (converted.dtype, converted.max_length) == ("float32", 128)
    config = read(converted, "config.json")
    assert "quantization_config" not in config
    assert config["tie_word_embeddings"] is True
    # its writers make some files for their owner alone: all are what a new file is, less writing
    (found,) = {mode(path) for path in converted.path.iterdir()}
    assert found == mode(converted.path) & 0o444


def test_every_weight_is_where_transformers_wants_it(
    converted: ModelRecord, weights: Weights
) -> None:
    saved = load_file(converted.path / "model.safetensors")
    assert saved.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(saved[name], weight, err_msg=name)


def test_the_chat_template_survives(converted: ModelRecord) -> None:
    assert converted.chat_template
    assert (converted.path / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_both_end_tokens_end_an_answer(converted: ModelRecord) -> None:
    assert read(converted, "generation_config.json")["eos_token_id"] == [0, 2]


def test_digits_stand_apart_before_merging(converted: ModelRecord) -> None:
    tokenizer = Tokenizer.from_file(str(converted.path / "tokenizer.json"))
    assert tokenizer.encode("ab  12").tokens == ["ab", "ĠĠ", "1", "2"]
    assert tokenizer.encode("<|im_end|>").ids == [2]
    assert tokenizer.decode(tokenizer.encode("ab  12 é").ids) == "ab  12 é"


def test_the_converters_last_words_are_the_reason(
    tmp_path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = tmp_path / "converter"
    converter.write_text("#!/bin/sh\necho noise >&2\necho 'ValueError: too odd' >&2\nexit 1\n")
    converter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(converter))
    source = write_llama(tmp_path / "tiny.gguf", weights)
    registry = Registry(tmp_path / "models")
    with pytest.raises(UnsupportedModel, match=r"tiny\.gguf cannot be converted: .*too odd"):
        registry.import_model("tiny", source)
    assert registry.names() == []


def test_a_damaged_file_never_reaches_the_converter(
    tmp_path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_llama(tmp_path / "tiny.gguf", weights)
    source.write_bytes(source.read_bytes()[:1000])
    monkeypatch.setattr("batchgen.models.gguf.importing.run_confined", None)
    with pytest.raises(UnsafeModel, match=r"tiny\.gguf is damaged"):
        Registry(tmp_path / "models").import_model("tiny", source)


def test_the_alphabet_of_these_tests_is_that_of_the_library() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(byte_alphabet()) == sorted(ByteLevel.alphabet())
