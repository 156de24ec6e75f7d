"""The head of a GGUF file, read with every length checked against the file's own size.

"GGUF" version tensors entries ┬ entries x (key, type, value)
                               ├ tensors x (name, dimensions, type, offset)
                               └ padding, then the data
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from batchgen.errors import UnsafeModel, UnsupportedModel

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_COUNT = 1_000_000  # tensors or metadata entries; large models have thousands
MAX_KEY = 1 << 16  # bytes
MAX_TEXT = 1 << 20  # bytes; the longest value is a chat template
MAX_DIMENSIONS = 8

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


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says of itself, without vocabularies and weights."""

    #: Scalars and strings by key; arrays are left out.
    metadata: dict[str, Scalar]
    #: {tensor name: dimensions, fastest first}
    tensors: dict[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """The model family by llama.cpp's name, such as `llama`."""
        return str(self.metadata.get("general.architecture", ""))


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the head of a file; raise UnsafeModel where a length leads out of it.

    UnsupportedModel where the version is none that is known.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise UnsafeModel(f"{path.name} is not a GGUF file.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(data, path.name).header()


class _Cursor:
    """A position in the file that can only move forward and never past the end."""

    def __init__(self, data: mmap.mmap, name: str) -> None:
        self.data = data
        self.name = name
        self.position = len(MAGIC)

    def header(self) -> GgufHeader:
        version = self.number("I")
        if version not in VERSIONS:
            raise UnsupportedModel(f"{self.name} is GGUF version {version}; 2 and 3 are read.")
        tensors, entries = (self.count(MAX_COUNT) for _ in range(2))
        metadata = dict(self.entry() for _ in range(entries))
        shapes = dict(self.tensor() for _ in range(tensors))
        scalars = {key: value for key, value in metadata.items() if value is not None}
        return GgufHeader(metadata=scalars, tensors=shapes)

    def entry(self) -> tuple[str, Scalar | None]:
        return self.text(MAX_KEY), self.value(self.number("I"))

    def tensor(self) -> tuple[str, tuple[int, ...]]:
        name, dimensions = self.text(MAX_KEY), self.number("I")
        if dimensions > MAX_DIMENSIONS:
            raise self.unsafe()
        shape = tuple(self.number("Q") for _ in range(dimensions))
        self.number("I")  # type of the blocks
        if self.number("Q") > len(self.data):
            raise self.unsafe()
        return name, shape

    def value(self, kind: int) -> Scalar | None:
        """Return the value of an entry, None for an array, which is walked over."""
        if kind in SCALARS:
            (value,) = self.unpack(SCALARS[kind])
            return value
        if kind == TEXT:
            return self.text(MAX_TEXT)
        if kind != ARRAY:
            raise self.unsafe()
        self.skip_array()
        return None

    def skip_array(self) -> None:
        kind, count = self.number("I"), self.count(len(self.data))
        if kind in SCALARS:
            self.take(count * struct.calcsize(f"<{SCALARS[kind]}"))
        elif kind == TEXT:
            for _ in range(count):
                self.take(self.count(MAX_TEXT))
        else:  # arrays of arrays exist in the format, not in models
            raise self.unsafe()

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
