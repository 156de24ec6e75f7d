from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.describe import DEFAULT_LENGTH, describe
from tests.unit.models.folders import model_folder, write_json


def test_what_the_files_say(tmp_path: Path) -> None:
    assert describe(model_folder(tmp_path)) == ("LlamaForCausalLM", "bfloat16", 128, True)


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"dtype": "float16"}, "float16"),
        ({"dtype": None, "torch_dtype": "torch.float16"}, "float16"),
        ({"dtype": None}, "float32"),
        ({"dtype": "auto"}, "float32"),
    ],
)
def test_dtype_is_the_configs_or_that_of_the_weights(
    tmp_path: Path, config: dict[str, Any], dtype: str
) -> None:
    assert describe(model_folder(tmp_path, **config)).dtype == dtype


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"n_positions": 512}, 512),
        ({"n_ctx": 256}, 256),
        ({"text_config": {"max_position_embeddings": 300}}, 300),
        ({}, 64),
    ],
)
def test_context_length_is_found_where_a_family_keeps_it(
    tmp_path: Path, config: dict[str, Any], length: int
) -> None:
    folder = model_folder(tmp_path, max_position_embeddings=None, **config)
    assert describe(folder).max_length == length


@pytest.mark.parametrize("tokenizer", [{}, {"model_max_length": 10**30}])
def test_context_length_has_a_default(tmp_path: Path, tokenizer: dict[str, int]) -> None:
    folder = model_folder(tmp_path, max_position_embeddings=None)
    write_json(folder / "tokenizer_config.json", tokenizer)
    assert describe(folder).max_length == DEFAULT_LENGTH


def test_a_chat_template_is_found_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    write_json(folder / "tokenizer_config.json", {})
    assert not describe(folder).chat_template
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert describe(folder).chat_template


def test_architecture_falls_back_to_the_model_type(tmp_path: Path) -> None:
    assert describe(model_folder(tmp_path, architectures=None)).architecture == "llama"


def test_a_config_that_names_no_model_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, architectures=None, model_type=None)
    with pytest.raises(UnsupportedModel, match="model_type"):
        describe(folder)


@pytest.mark.parametrize(
    ("missing", "says"), [("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")]
)
def test_missing_files_are_named(tmp_path: Path, missing: str, says: str) -> None:
    folder = model_folder(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(UnsupportedModel, match=says):
        describe(folder)


@pytest.mark.parametrize("eos", ["</s>", ["</s>"], [[2]], {"id": 2}, 2.5])
def test_tokens_that_end_an_answer_are_numbers(tmp_path: Path, eos: object) -> None:
    folder = model_folder(tmp_path)
    write_json(folder / "generation_config.json", {"eos_token_id": eos})
    with pytest.raises(UnsafeModel, match=r"generation_config\.json.*eos_token_id"):
        describe(folder)


@pytest.mark.parametrize("eos", [None, 2, [2, 0]])
def test_an_answer_may_end_at_one_or_many_or_none(tmp_path: Path, eos: object) -> None:
    folder = model_folder(tmp_path)
    write_json(folder / "generation_config.json", {"eos_token_id": eos, "temperature": 0.6})
    assert describe(folder).architecture == "LlamaForCausalLM"
