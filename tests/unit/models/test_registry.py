from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from batchgen.errors import (
    BatchgenError,
    InvalidParameter,
    ModelError,
    ModelExists,
    UnknownModel,
    UnsafeModel,
    UnsupportedModel,
)
from batchgen.models import Registry
from batchgen.models.registry import TEMPORARY
from tests.support.permissions import mode, writable
from tests.unit.models.folders import model_folder, write_json


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "source")


def visible(registry: Registry) -> list[str]:
    return sorted(path.name for path in registry.root.iterdir() if not path.name.startswith("."))


def test_a_folder_is_pinned(registry: Registry, source: Path) -> None:
    record = registry.import_model("tiny", source)
    assert record == registry.get("tiny")
    assert (record.name, record.dtype, record.max_length) == ("tiny", "bfloat16", 128)
    assert record.architecture == "LlamaForCausalLM"
    assert record.chat_template
    assert record.path == registry.root / "tiny"
    assert record.source == str(source)
    assert set(record.files) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert registry.verify("tiny") == []


def test_the_hash_is_of_the_files_alone(registry: Registry, source: Path) -> None:
    one = registry.import_model("one", source)
    two = registry.import_model("two", source)
    assert one.sha256 == two.sha256
    write_json(source / "generation_config.json", {"eos_token_id": 2})
    assert registry.import_model("three", source).sha256 != one.sha256


def test_a_pinned_model_outlives_its_source(registry: Registry, source: Path) -> None:
    registry.import_model("tiny", source)
    (source / "model.safetensors").write_bytes(b"")
    assert registry.verify("tiny") == []


def test_a_model_of_another_registry_is_a_source(registry: Registry, source: Path) -> None:
    first = registry.import_model("first", source)
    second = registry.import_model("second", first.path)
    assert (second.sha256, second.files) == (first.sha256, first.files)
    assert registry.verify("second") == []


def test_files_that_no_model_needs_are_left_behind(registry: Registry, source: Path) -> None:
    (source / "training.log").touch()
    (source / "onnx").mkdir()
    (source / "onnx" / "model.onnx").touch()
    record = registry.import_model("tiny", source)
    assert {path.name for path in record.path.iterdir()} == {*record.files, "batchgen-model.json"}


@pytest.mark.parametrize(
    "name", ["a", "smollm2-135m", "0.5b", "Qwen3-8B", "a" * 96, "Qwen/Qwen3-0.6B"]
)
def test_names_that_are_taken(registry: Registry, source: Path, name: str) -> None:
    assert registry.import_model(name, source).name == name
    assert (registry.names(), registry.get(name).name) == ([name], name)
    assert registry.get(name).path.parent == registry.root
    assert registry.verify(name) == []
    with pytest.raises(ModelExists):
        registry.import_model(name, source)
    registry.remove(name)
    assert visible(registry) == []


def test_a_name_and_an_owner_of_that_name_are_two(registry: Registry, source: Path) -> None:
    for name in ("tiny", "tiny/tiny", "tiny/b"):
        registry.import_model(name, source)
    assert registry.names() == ["tiny", "tiny/b", "tiny/tiny"]
    registry.remove("tiny")
    assert registry.verify("tiny/tiny") == []
    with pytest.raises(UnknownModel, match="Did you mean tiny/b"):
        registry.get("tiny/")


@pytest.mark.parametrize(
    "name",
    [
        *("", "-a", ".a", "..", "../a", "a/..", "a/../b", "a/.b", "/a", "a/", "a//b", "a/b/c"),
        *("a%2Fb", "a%2e", "a\\b", "a b", "ä", "a" * 97, "a\n", "a\0"),
    ],
)
def test_names_that_are_not(registry: Registry, source: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match="not a model name"):
        registry.import_model(name, source)
    with pytest.raises(UnknownModel):
        registry.get(name)
    with pytest.raises(UnknownModel):
        registry.remove(name)


def test_a_name_is_given_once(registry: Registry, source: Path) -> None:
    first = registry.import_model("tiny", source)
    write_json(source / "generation_config.json", {})
    with pytest.raises(ModelExists, match="batchgen models rm tiny"):
        registry.import_model("tiny", source)
    assert registry.get("tiny") == first


def test_unknown_models_come_with_a_guess(registry: Registry, source: Path) -> None:
    with pytest.raises(UnknownModel, match="models ls"):
        registry.get("smollm2")
    registry.import_model("smollm2-135m", source)
    with pytest.raises(UnknownModel, match=r"Did you mean smollm2-135m\?"):
        registry.get("smollm-135m")


def test_list_is_sorted(registry: Registry, source: Path) -> None:
    assert registry.list() == []
    for name in ("b", "c", "a"):
        registry.import_model(name, source)
    assert [record.name for record in registry.list()] == registry.names() == ["a", "b", "c"]


def test_remove_takes_the_files(registry: Registry, source: Path) -> None:
    registry.import_model("tiny", source)
    registry.remove("tiny")
    assert registry.names() == []
    assert list(registry.root.glob(f"{TEMPORARY}*")) == []
    with pytest.raises(UnknownModel):
        registry.remove("tiny")
    registry.import_model("tiny", source)


def test_a_model_is_read_only_and_readable_as_the_umask_says(
    registry: Registry, source: Path, umask: Callable[[int], None]
) -> None:
    umask(0o027)
    model = registry.import_model("tiny", source)
    assert {mode(path) for path in model.path.iterdir()} == {0o440}
    registry.remove("tiny")
    assert registry.names() == []


def test_verify_names_every_file_that_differs(registry: Registry, source: Path) -> None:
    path = registry.import_model("tiny", source).path
    writable(path / "config.json").write_text("{}")
    (path / "tokenizer.json").unlink()
    (path / "modeling.py").touch()
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").mkdir()
    assert registry.verify("tiny") == [
        "config.json has changed",
        "model.safetensors has changed",
        "tokenizer.json is missing",
        "modeling.py is not part of the model",
    ]


def spoil_code(folder: Path) -> None:
    (folder / "modeling.py").touch()


def spoil_auto_map(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": "x.Y"}})


def spoil_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK")


def spoil_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def spoil_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (spoil_code, UnsafeModel),
        (spoil_auto_map, UnsafeModel),
        (spoil_weights, UnsafeModel),
        (spoil_tokenizer, UnsupportedModel),
        (spoil_config, UnsupportedModel),
    ],
)
def test_a_refused_model_leaves_nothing(
    registry: Registry, source: Path, spoil: object, error: type[BatchgenError]
) -> None:
    assert callable(spoil)
    spoil(source)
    with pytest.raises(error):
        registry.import_model("tiny", source)
    assert visible(registry) == []
    assert list(registry.root.glob(f"{TEMPORARY}*")) == []


def test_a_full_disk_is_an_error_with_a_name(
    registry: Registry, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(ModelError, match="No space left"):
        registry.import_model("tiny", source)
    assert visible(registry) == []
    assert list(registry.root.glob(f"{TEMPORARY}*")) == []


def test_a_home_that_is_a_file_is_an_error_with_a_name(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be imported"):
        Registry(tmp_path / "file" / "models").import_model("tiny", source)


def test_what_a_killed_import_left_is_swept(registry: Registry, source: Path) -> None:
    left = registry.root / f"{TEMPORARY}dead"
    left.mkdir(parents=True)
    (left / "model.safetensors").touch()
    registry.import_model("tiny", source)
    assert not left.exists()
    assert registry.names() == ["tiny"]


def test_of_two_imports_at_once_one_wins(registry: Registry, source: Path) -> None:
    outcomes: list[type[BaseException] | None] = []

    def run() -> None:
        try:
            registry.import_model("tiny", source)
            outcomes.append(None)
        except ModelError as error:
            outcomes.append(type(error))

    threads = [Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == sorted(map(str, [None, *[ModelExists] * 3]))
    assert registry.verify("tiny") == []
