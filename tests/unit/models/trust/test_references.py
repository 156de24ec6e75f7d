"""Files of a model that name files: see `batchgen.models.trust.references`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models import Registry
from batchgen.models.record import hash_file, write_record
from batchgen.models.trust.references import check_pinned, check_references
from tests.unit.models.folders import model_folder, safetensors, write_json

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound model, and weights beside it that it must not reach."""
    (tmp_path / "elsewhere.safetensors").write_bytes(safetensors())
    return model_folder(tmp_path / "model")


def outside(folder: Path, name: str) -> str:
    return name.replace("FOLDER", str(folder.parent))


PATHS = [
    "../elsewhere.safetensors",
    "FOLDER/elsewhere.safetensors",
    "./model.safetensors",
    "sub/model.safetensors",
    "..",
    "",
]


@pytest.mark.parametrize("name", PATHS)
def test_an_index_names_plain_files(folder: Path, name: str) -> None:
    write_json(folder / INDEX, {"weight_map": {"a": outside(folder, name)}})
    with pytest.raises(UnsafeModel, match=r"index\.json names the file .* no plain name"):
        check_references(folder)


@pytest.mark.parametrize(
    "index",
    [
        [],
        {},
        {"weight_map": []},
        {"weight_map": ["model.safetensors"]},
        {"weight_map": {"a": ["model.safetensors"]}},
        {"weight_map": {"a": None}},
        {"weight_map": "model.safetensors"},
    ],
)
def test_an_index_of_another_form_is_named(folder: Path, index: object) -> None:
    write_json(folder / INDEX, index)
    with pytest.raises(UnsafeModel, match=rf"{INDEX} is no index of weights"):
        check_references(folder)


def test_an_index_names_weights_that_are_there(folder: Path) -> None:
    write_json(folder / INDEX, {"weight_map": {"a": "model.safetensors"}, "metadata": {"n": 1}})
    check_references(folder)
    write_json(folder / INDEX, {"weight_map": {"a": "model-00002-of-00002.safetensors"}})
    with pytest.raises(UnsupportedModel, match="model-00002-of-00002"):
        check_references(folder)
    write_json(folder / INDEX, {"weight_map": {"a": "tokenizer.json"}})
    with pytest.raises(UnsafeModel, match="no safetensors file"):
        check_references(folder)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("config.json", "transformers_weights"),
        ("tokenizer_config.json", "tokenizer_file"),
        ("tokenizer_config.json", "vocab_file"),
        ("tokenizer_config.json", "gguf_file"),
        ("preprocessor_config.json", "some_file"),
        ("special_tokens_map.json", "chat_template_file"),
    ],
)
@pytest.mark.parametrize("value", ["../x.json", "FOLDER/x.json", ["../x.json"], {"a": "/x"}, 7])
def test_whatever_names_a_file_names_one_of_the_folder(
    folder: Path, file: str, key: str, value: Any
) -> None:
    value = outside(folder, value) if isinstance(value, str) else value
    write_json(folder / file, {"deep": [{key: value}]})
    with pytest.raises(UnsafeModel, match=rf"{file} names the file"):
        check_references(folder)


def test_versions_of_a_tokenizer_are_files_of_the_folder(folder: Path) -> None:
    files: dict[str, Any] = {"fast_tokenizer_files": ["tokenizer.json"], "vocab_file": None}
    kept = {"special_tokens_map_file": "/old/cache/special_tokens_map.json"}  # nothing opens it
    write_json(folder / "tokenizer_config.json", files | kept)
    check_references(folder)
    write_json(folder / "tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.json"]})
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.4\.0\.json, and it is missing"):
        check_references(folder)


def test_an_adapter_is_no_model(folder: Path) -> None:
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "../other"})
    with pytest.raises(UnsupportedModel, match="Merge the adapter"):
        check_references(folder)


def test_an_import_refuses_it(folder: Path, tmp_path: Path) -> None:
    write_json(folder / INDEX, {"weight_map": {"a": "../elsewhere.safetensors"}})
    registry = Registry(tmp_path / "models")
    with pytest.raises(UnsafeModel, match="no plain name"):
        registry.import_model("tiny", folder)
    assert registry.names() == []


def test_a_registered_model_is_what_its_record_says(folder: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    path = registry.import_model("tiny", folder).path
    check_pinned(path)
    (path / "extra.safetensors").write_bytes(safetensors())
    with pytest.raises(UnsafeModel, match=r"extra\.safetensors is not part of the model"):
        check_pinned(path)
    (path / "extra.safetensors").unlink()
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(UnsafeModel, match=r"model\.safetensors is a link"):
        check_pinned(path)
    assert registry.verify("tiny") == ["model.safetensors is a link"]


def test_verify_names_what_an_earlier_version_let_in(folder: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    record = registry.import_model("tiny", folder)
    write_json(record.path / INDEX, {"weight_map": {"a": "../elsewhere.safetensors"}})
    pinned = record.files | {INDEX: hash_file(record.path / INDEX)}
    write_record(msgspec.structs.replace(record, files=pinned), record.path)
    (problem,) = registry.verify("tiny")
    assert "'../elsewhere.safetensors', which is no plain name" in problem
