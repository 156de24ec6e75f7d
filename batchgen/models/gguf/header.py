"""The header of a GGUF file; every length is checked against the file's size.

"GGUF" version tensors entries ┬ entries x (key, type, value)
                               ├ tensors x (name, dimensions, type, offset)
                               └ padding, then the data
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from batchgen.errors import UnsafeModel, UnsupportedModel

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_COUNT = 1_000_000  # tensors or metadata entries; large models have thousands
MAX_KEY = 1 << 16  # bytes
MAX_TEXT = 1 << 20  # bytes; the longest value is a chat template
MAX_DIMENSIONS = 4
MAX_PER_BYTE = 8  # the most weights in one byte
MAX_NUMBERS = 1 << 16  # the most elements of a numeric array to keep; models have one per layer
MAX_TEXTS = (
    1 << 23
)  # elements of a text array that is asked for; the largest vocabularies have 2**18
ALIGNMENT = 32  # bytes, if the file has no other value

# Value types of fixed width; 8 is a string, 9 an array of one other type.
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT = 8
ARRAY = 9

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | None
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """The position, the shape and the type of one tensor."""

    #: In torch's order, the slowest dimension first.
    shape: tuple[int, ...]
    #: The number of ggml's type.
    kind: int
    #: In bytes from the beginning of the file.
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """The metadata of a GGUF file and the positions of its tensors."""

    #: Every key; None stands for an array that was skipped.
    metadata: dict[str, Value]
    tensors: dict[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """The model family by llama.cpp's name, such as `llama`."""
        return str(self.metadata.get("general.architecture", ""))


def read_gguf_header(path: Path, *, texts: frozenset[str] = frozenset()) -> GgufHeader:
    """Return the header of a file.

    Arrays of text can be large; they are kept only if `texts` contains their keys. Raise
    UnsafeModel if a length leads out of the file, UnsupportedModel if the version is unknown.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise UnsafeModel(f"{path.name} is not a GGUF file.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(data, path.name, texts).header()


class _Cursor:
    """A position in the file that can only move forward and never past the end."""

    def __init__(self, data: mmap.mmap, name: str, texts: frozenset[str]) -> None:
        self.data = data
        self.name = name
        self.texts = texts
        self.position = len(MAGIC)

    def header(self) -> GgufHeader:
        version = self.number("I")
        if version not in VERSIONS:
            raise UnsupportedModel(f"{self.name} is GGUF version {version}; 2 and 3 are read.")
        tensors, entries = (self.count(MAX_COUNT) for _ in range(2))
        metadata = self.unique([self.entry() for _ in range(entries)])
        tensors_read = [self.tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= len(self.data):
            raise self.unsafe()
        start = -(-self.position // alignment) * alignment
        placed = [(name, replace(t, offset=start + t.offset)) for name, t in tensors_read]
        return GgufHeader(metadata=metadata, tensors=self.unique(placed))

    def unique(self, pairs: list[tuple[str, V]]) -> dict[str, V]:
        """Return the pairs as a dict; raise UnsafeModel if a name occurs twice."""
        found = dict(pairs)
        if len(found) != len(pairs):
            raise self.unsafe()
        return found

    def entry(self) -> tuple[str, Value]:
        key = self.text(MAX_KEY)
        return key, self.value(self.number("I"), keep=key in self.texts)

    def tensor(self) -> tuple[str, GgufTensor]:
        name, dimensions = self.text(MAX_KEY), self.number("I")
        if dimensions > MAX_DIMENSIONS:
            raise self.unsafe()
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        kind, offset = self.number("I"), self.number("Q")
        if offset > len(self.data) or math.prod(shape) > MAX_PER_BYTE * len(self.data):
            raise self.unsafe()
        return name, GgufTensor(shape=shape, kind=kind, offset=offset)

    def value(self, kind: int, *, keep: bool) -> Value:
        """Return the value of an entry, None for an array that is skipped."""
        if kind in SCALARS:
            (value,) = self.unpack(SCALARS[kind])
            return value
        if kind == TEXT:
            return self.text(MAX_TEXT)
        if kind != ARRAY:
            raise self.unsafe()
        return self.array(keep=keep)

    def array(self, *, keep: bool) -> tuple[Scalar, ...] | None:
        kind, count = self.number("I"), self.count(len(self.data))
        if kind in SCALARS:
            raw = self.take(count * struct.calcsize(f"<{SCALARS[kind]}"))
            return struct.unpack(f"<{count}{SCALARS[kind]}", raw) if count <= MAX_NUMBERS else None
        if kind != TEXT:  # arrays of arrays exist in the format, not in models
            raise self.unsafe()
        if keep and count <= MAX_TEXTS:
            return tuple(self.text(MAX_TEXT) for _ in range(count))
        for _ in range(count):
            self.take(self.count(MAX_TEXT))
        return None

    def text(self, limit: int) -> str:
        return self.take(self.count(limit)).decode("utf-8", errors="replace")

    def count(self, limit: int) -> int:
        count = self.number("Q")
        if count > limit:
            raise self.unsafe()
        return count

    def number(self, kind: str) -> int:
        (number,) = self.unpack(kind)
        return int(number)

    def unpack(self, kind: str) -> tuple[Scalar, ...]:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.data):
            raise self.unsafe()
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def unsafe(self) -> UnsafeModel:
        return UnsafeModel(
            f"{self.name} is damaged: its header claims what the file does not hold "
            f"(byte {self.position}). Fetch it again."
        )
