from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from batchgen.errors import Corrupt
from batchgen.models.record import (
    RECORD_FILE,
    ModelRecord,
    hash_file,
    hash_files,
    read_record,
    write_record,
)


def record(folder: Path, **changes: object) -> ModelRecord:
    values: dict[str, object] = {
        "name": folder.name,
        "path": folder,
        "dtype": "float32",
        "max_length": 128,
        "sha256": "ab" * 32,
        "architecture": "LlamaForCausalLM",
        "chat_template": True,
        "source": "./somewhere",
        "files": {"config.json": "cd" * 32},
        "created_at": "2026-11-22T10:00:00+00:00",
    }
    return ModelRecord(**values | changes)  # type: ignore[arg-type]


def test_a_record_comes_back_as_written(tmp_path: Path) -> None:
    write_record(record(tmp_path), tmp_path)
    assert read_record(tmp_path) == record(tmp_path)


def test_a_home_can_be_moved(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    write_record(record(old), old)
    new = old.rename(tmp_path / "new")
    assert read_record(new).path == new
    assert str(old) not in (new / RECORD_FILE).read_text()


def test_as_dict_is_plain_json(tmp_path: Path) -> None:
    fields = record(tmp_path).as_dict()
    assert fields["path"] == str(tmp_path)
    assert {"name", "path", "dtype", "max_length"} <= set(fields)
    msgspec.json.encode(fields)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"dtype": 3}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD_FILE).write_bytes(content)
    with pytest.raises(Corrupt, match=tmp_path.name):
        read_record(tmp_path)


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    write_record(record(tmp_path, version=99), tmp_path)
    with pytest.raises(Corrupt, match="newer"):
        read_record(tmp_path)


def test_the_list_hash_is_what_sha256sum_gives(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"1", b"2"))
    files = {name: hash_file(tmp_path / name) for name in ("b", "a")}
    assert files == {"a": one, "b": two}
    listing = f"{one}  a\n{two}  b\n".encode()
    assert hash_files(files) == hashlib.sha256(listing).hexdigest()
