from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import UnsafeModel
from batchgen.models.weights import check_weights, count_weights, read_spans, weights_dtype
from tests.unit.models.folders import DATA, HEADER, safetensors


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_spans_come_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", safetensors(dict(reversed(HEADER.items()))))
    assert [(span.begin, span.end, span.dtype) for span in read_spans(path)] == [
        (0, 16, "float32"),
        (16, 20, "bfloat16"),
    ]


def test_dtype_is_the_one_of_most_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "1.safetensors", safetensors())
    half = {"x": {"dtype": "F16", "shape": [40], "data_offsets": [0, 80]}}
    second = write(tmp_path / "2.safetensors", safetensors(half, bytes(80)))
    assert weights_dtype([first]) == "float32"
    assert weights_dtype([first, second]) == "float16"
    assert weights_dtype([]) == "float32"


def test_weights_are_counted_whatever_their_width(tmp_path: Path) -> None:
    assert count_weights(write(tmp_path / "m.safetensors", safetensors())) == 4 + 2


def tensor(**changes: Any) -> bytes:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes
    return safetensors({"x": entry}, bytes(16))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x80\x02}q\x00.", id="pickle"),
        pytest.param(struct.pack("<Q", 1 << 40) + b"{}", id="header longer than the file"),
        pytest.param(struct.pack("<Q", 4) + b"oops", id="header is no JSON"),
        pytest.param(struct.pack("<Q", 20_000) + b"[" * 20_000, id="header nests too deep"),
        pytest.param(safetensors([1], b""), id="header is no object"),
        pytest.param(safetensors(HEADER, DATA[:-1]), id="cut short"),
        pytest.param(safetensors(HEADER, DATA + b"!"), id="bytes behind the last tensor"),
        pytest.param(tensor(dtype="OBJECT"), id="unknown dtype"),
        pytest.param(tensor(shape=[2, 3]), id="shape and bytes disagree"),
        pytest.param(tensor(shape=[-2, -2]), id="negative shape"),
        pytest.param(tensor(shape=[2.0, 2.0]), id="shape of floats"),
        pytest.param(tensor(data_offsets=[0]), id="one offset"),
        pytest.param(tensor(data_offsets=[16, 32]), id="past the end"),
        pytest.param(safetensors({"x": 7}, b""), id="tensor is no object"),
    ],
)
def test_unsound_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "m.safetensors", content)
    with pytest.raises(UnsafeModel, match=r"m\.safetensors"):
        check_weights(path)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    header = {"a": entry, "b": entry | {"data_offsets": [8, 24]}}
    path = write(tmp_path / "m.safetensors", safetensors(header, bytes(24)))
    with pytest.raises(UnsafeModel, match="overlap"):
        check_weights(path)
