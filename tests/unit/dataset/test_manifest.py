from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.dataset.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    Totals,
    local_path,
    read_manifest,
)
from batchgen.errors import Corrupt
from tests.support.result_rows import JOB, META

DATA = FileEntry(path="data/train-00000-of-00001.parquet", rows=2, bytes=10, sha256="c" * 64)
ERRORS = FileEntry(path="errors/errors-00000-of-00001.parquet", rows=1, bytes=9, sha256="d" * 64)
CARD = FileEntry(path="README.md", rows=None, bytes=3, sha256="e" * 64)
EXAMPLE = Manifest(
    meta=replace(META, n_rows=3),
    totals=Totals(rows=3, ok=2, errors=1),
    files=[DATA, ERRORS, CARD],
)


def put(folder: Path, data: bytes) -> Path:
    path = folder / MANIFEST
    path.parent.mkdir()
    path.write_bytes(data)
    return path


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(EXAMPLE.encode()), **changes}).encode()


def test_a_round_trip_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path, EXAMPLE.encode())
    assert read_manifest(tmp_path) == EXAMPLE


def test_it_is_json_that_people_can_read() -> None:
    value = json.loads(EXAMPLE.encode())
    assert value["schema_version"] == 1
    assert value["meta"]["job_id"] == JOB
    assert value["totals"]["errors"] == 1
    assert value["files"][0] == {
        "path": "data/train-00000-of-00001.parquet",
        "rows": 2,
        "bytes": 10,
        "sha256": "c" * 64,
    }


def test_a_manifest_of_an_earlier_version_has_no_totals_of_the_pool(tmp_path: Path) -> None:
    value = json.loads(EXAMPLE.encode())
    del value["totals"]["kv"], value["totals"]["finish_reasons"]
    put(tmp_path, json.dumps(value).encode())
    assert read_manifest(tmp_path).totals == EXAMPLE.totals


def test_equal_manifests_give_equal_bytes_whatever_the_order_of_parameters() -> None:
    one = replace(EXAMPLE, meta=replace(META, params={"seed": 1, "max_tokens": 2}))
    two = replace(EXAMPLE, meta=replace(META, params={"max_tokens": 2, "seed": 1}))
    assert one.encode() == two.encode()
    assert one.meta.schema_metadata() == two.meta.schema_metadata()


def test_files_are_found_by_kind() -> None:
    assert EXAMPLE.data_files() == [DATA]
    assert EXAMPLE.error_files() == [ERRORS]
    assert local_path(Path("/d"), DATA) == Path("/d/data/train-00000-of-00001.parquet")


def test_schema_metadata_has_every_key_and_text_only() -> None:
    assert replace(META, git_sha="f" * 40).schema_metadata() == {
        "batchgen.schema_version": "1",
        "batchgen.job_id": JOB,
        "batchgen.model": "tiny",
        "batchgen.model_revision": "a" * 64,
        "batchgen.engine_version": "0.1.0",
        "batchgen.sampling_params": '{"max_tokens":16,"temperature":0.0}',
        "batchgen.input_sha256": "b" * 64,
        "batchgen.created_at": "2026-09-21T14:13:20.500000Z",
        "batchgen.git_sha": "f" * 40,
    }


def test_an_unknown_git_sha_is_left_out() -> None:
    assert "batchgen.git_sha" not in META.schema_metadata()


def test_a_folder_without_manifest_is_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="not a finished dataset"):
        read_manifest(tmp_path)
    with pytest.raises(Corrupt, match="not a finished dataset"):
        read_manifest(tmp_path / "missing")


def test_another_sum_than_recorded_is_noticed(tmp_path: Path) -> None:
    put(tmp_path, EXAMPLE.encode())
    good = hashlib.sha256(EXAMPLE.encode()).hexdigest()
    assert read_manifest(tmp_path, sha256=good) == EXAMPLE
    with pytest.raises(Corrupt, match="was changed"):
        read_manifest(tmp_path, sha256="0" * 64)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff", changed(files=3)])
def test_what_is_not_a_manifest_is_refused(tmp_path: Path, data: bytes) -> None:
    put(tmp_path, data)
    with pytest.raises(Corrupt, match=r"manifest\.json cannot be read"):
        read_manifest(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    put(tmp_path, changed(schema_version=2))
    with pytest.raises(Corrupt, match="schema 2"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "path",
    ["../secret", "/etc/passwd", "data/../../x", "data/other.parquet", "", "README.md\n", "a\0b"],
)
def test_a_forged_name_cannot_lead_out_of_the_folder(tmp_path: Path, path: str) -> None:
    put(tmp_path, changed(files=[{"path": path, "rows": 1, "bytes": 1, "sha256": "0"}]))
    with pytest.raises(Corrupt, match="no dataset holds"):
        read_manifest(tmp_path)
