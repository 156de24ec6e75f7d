from __future__ import annotations

import struct
from pathlib import Path

import pytest

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.gguf.header import MAX_DIMENSIONS, GgufTensor, read_gguf_header
from tests.unit.models.gguf_files import entry, header, llama_weights, text, write_llama

STRINGS = struct.pack("<IQ", 8, 2) + text("a") + text("b")
FLOATS = struct.pack("<IQ2f", 6, 2, 0.5, 1.5)


def tensor(name: str, *shape: int, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", 0, offset)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_values_are_read_and_arrays_of_text_where_they_are_asked_for(tmp_path: Path) -> None:
    content = header(
        entry("general.architecture", 8, text("llama")),
        entry("tokens", 9, STRINGS),
        entry("scores", 9, FLOATS),
        entry("eos", 4, struct.pack("<I", 2)),
        entry("flag", 7, b"\1"),
        entry("eps", 6, struct.pack("<f", 0.5)),
        tensors=1,
    )
    path = write(tmp_path / "m.gguf", content + tensor("w", 4, 3))
    found = read_gguf_header(path)
    assert found.architecture == "llama"
    assert found.metadata == {
        "general.architecture": "llama",
        "tokens": None,
        "scores": (0.5, 1.5),
        "eos": 2,
        "flag": True,
        "eps": 0.5,
    }
    start = -(-path.stat().st_size // 32) * 32
    assert found.tensors == {"w": GgufTensor(shape=(3, 4), kind=0, offset=start)}
    asked = read_gguf_header(path, texts=frozenset({"tokens"}))
    assert asked.metadata == found.metadata | {"tokens": ("a", "b")}


def test_a_file_of_the_reference_writer(tmp_path: Path) -> None:
    weights = llama_weights()
    found = read_gguf_header(write_llama(tmp_path / "m.gguf", weights))
    assert found.architecture == "llama"
    assert found.metadata["tokenizer.ggml.pre"] == "smollm"
    assert found.metadata["llama.context_length"] == 128
    assert len(found.tensors) == len(weights)


SOUND = header(entry("a", 8, text("b")), entry("tokens", 9, STRINGS))
HUGE = struct.pack("<Q", 1 << 62)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"PK\3\4" + bytes(100), id="another format"),
        pytest.param(b"GGUF", id="magic only"),
        pytest.param(header(count=5), id="entries that are not there"),
        pytest.param(header(count=1 << 40), id="absurd number of entries"),
        pytest.param(header(tensors=1 << 40), id="absurd number of tensors"),
        pytest.param(header(tensors=1), id="tensors that are not there"),
        pytest.param(header(HUGE + b"key"), id="key longer than the file"),
        pytest.param(header(entry("a", 8, HUGE)), id="text longer than the file"),
        pytest.param(header(entry("a", 9, struct.pack("<I", 6) + HUGE)), id="endless numbers"),
        pytest.param(header(entry("a", 9, struct.pack("<I", 8) + HUGE)), id="endless strings"),
        pytest.param(header(entry("a", 9, struct.pack("<IQ", 9, 1))), id="array of arrays"),
        pytest.param(header(entry("a", 77, b"")), id="unknown type"),
        pytest.param(header(tensors=1) + tensor("w", *[1] * (MAX_DIMENSIONS + 1)), id="dimensions"),
        pytest.param(header(tensors=1) + tensor("w", 1, offset=1 << 40), id="data past the end"),
        pytest.param(
            header(tensors=1) + tensor("w", 1 << 40, 1 << 40), id="more than a file holds"
        ),
        pytest.param(header(tensors=2) + tensor("w", 1) + tensor("w", 1), id="a name twice"),
        pytest.param(header(entry("a", 8, text("b")), entry("a", 8, text("c"))), id="a key twice"),
        pytest.param(
            header(entry("general.alignment", 4, struct.pack("<I", 0))), id="alignment of nothing"
        ),
        *(pytest.param(SOUND[:cut], id=f"cut at {cut}") for cut in range(5, len(SOUND), 7)),
    ],
)
def test_unsound_headers_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnsafeModel, match=r"m\.gguf"):
        read_gguf_header(write(tmp_path / "m.gguf", content))


@pytest.mark.parametrize("version", [0, 1, 4, 0x03000000])
def test_other_versions_are_named(tmp_path: Path, version: int) -> None:
    with pytest.raises(UnsupportedModel, match=f"version {version}"):
        read_gguf_header(write(tmp_path / "m.gguf", header(version=version)))
