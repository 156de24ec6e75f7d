"""Checks file names inside a model's files: they must be plain names of the same folder.

    model.safetensors.index.json   weight_map: {tensor: file}
    config.json                    transformers_weights
    tokenizer_config.json, …       every key that ends in _file or _files

Other names would load files that no record has pinned.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.record import RECORD_FILE, read_record
from batchgen.models.trust.jsons import read_json

INDEXES = "*.safetensors.index*.json"
ADAPTER = "adapter_config.json"
# Files that are searched for names; vocabularies name tokens, not files.
NAMING = ("config.json", "*_config.json", "special_tokens_map.json")
KEYS = frozenset({"transformers_weights", "gguf_file"})
# Written by old versions of transformers; nothing opens the file.
IGNORED = frozenset({"special_tokens_map_file"})


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def check_references(folder: Path) -> None:
    """Raise UnsafeModel or UnsupportedModel if a file names one that is not in the folder."""
    if (folder / ADAPTER).exists():
        raise UnsupportedModel(
            f"{ADAPTER} names another model that its weights belong to. Merge the adapter into "
            "that model, and import the merged folder."
        )
    for path in folder.glob(INDEXES):
        for name in sorted(set(_index(path).weight_map.values())):
            _check_name(folder, path.name, name)
            if not name.endswith(".safetensors"):
                raise UnsafeModel(f"{path.name} names {name!r}, which is no safetensors file.")
    for pattern in NAMING:
        for path in folder.glob(pattern):
            for name in _names(read_json(path)):
                _check_name(folder, path.name, name)


def check_pinned(folder: Path) -> None:
    """Raise UnsafeModel if a registered model has links, or files that are not in its record."""
    links = [path.name for path in folder.iterdir() if path.is_symlink()]
    if links:
        raise UnsafeModel(f"{links[0]} is a link: a model's files lie in its folder.")
    if (folder / RECORD_FILE).exists():
        extra = {path.name for path in folder.iterdir()} - {RECORD_FILE, *read_record(folder).files}
        if extra:
            raise UnsafeModel(
                f"{min(extra)} is not part of the model that was imported. Remove it, or import "
                "the model again."
            )


def _index(path: Path) -> _Index:
    try:
        return msgspec.convert(read_json(path), _Index)
    except msgspec.ValidationError as error:
        raise UnsafeModel(f"{path.name} is no index of weights ({error}).") from error


def _names(document: Any) -> Iterator[Any]:
    """Yield the values of keys that name files, at any depth."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if key in KEYS or (key.endswith(("_file", "_files")) and key not in IGNORED):
                    yield from _leaves(inner)
                else:
                    pending.append(inner)


def _leaves(value: Any) -> Iterator[Any]:
    """Yield a name, or each name of a list or object of names."""
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for one in inner:
            yield from _leaves(one)
    elif value is not None:
        yield value


def _check_name(folder: Path, file: str, name: Any) -> None:
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise UnsafeModel(
            f"{file} names the file {name!r}, which is no plain name of the model's own folder. "
            "Bring all files into one folder, and name them by their names."
        )
    if (folder / name).is_symlink() or not (folder / name).is_file():
        raise UnsupportedModel(f"{file} names {name}, and it is missing: fetch all files.")
