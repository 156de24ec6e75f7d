"""The record of one model in the registry, stored beside its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from batchgen.core.dialects import Dialect
from batchgen.errors import Corrupt
from batchgen.models.endpoint import UNKNOWN_CONTEXT, Endpoint
from batchgen.models.names import name_of

RECORD_FILE = "batchgen-model.json"
#: Files have version 1, which earlier releases read too; an endpoint has 2.
RECORD_VERSION = 2
CHUNK = 1 << 20  # bytes read at a time


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One pinned model. `path` is where it lies now; everything else is fixed at import."""

    name: str
    # The folder of the files; not stored, so that a home can be moved.
    path: Path
    # The type of the stored weights: float32, bfloat16, float16.
    dtype: str
    # Tokens of prompt and answer together.
    max_length: int
    # SHA-256 of the sorted file list, one line "<sha256>  <name>" per file.
    sha256: str
    # The transformers class, such as `LlamaForCausalLM`.
    architecture: str
    # True if the model can answer rows with `messages`.
    chat_template: bool
    # The source as given; a hub id includes its commit.
    source: str
    # {file name: SHA-256}, without the record itself.
    files: dict[str, str]
    # RFC 3339, UTC.
    created_at: str
    # Where the model is served, if that is not here; then there are no files.
    endpoint: Endpoint | None = None
    version: int = 1

    @property
    def dialect(self) -> Dialect | None:
        """The dialect of the model's endpoint; None for a model with files."""
        return self.endpoint.dialect if self.endpoint else None

    @property
    def is_context_known(self) -> bool:
        """True unless the model's endpoint did not tell its context length."""
        return self.endpoint is None or self.max_length < UNKNOWN_CONTEXT

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON values, `path` included."""
        fields: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        return fields

    def log_context(self) -> dict[str, str]:
        """Return the fields that identify this model in a log line."""
        return {"model": self.name, "model_sha256": self.sha256[:12]}


def write_record(record: ModelRecord, folder: Path) -> None:
    """Store the record in `folder` as indented JSON."""
    fields = record.as_dict()
    del fields["path"]
    text = msgspec.json.format(msgspec.json.encode(fields), indent=2)
    (folder / RECORD_FILE).write_bytes(text + b"\n")


def read_record(folder: Path) -> ModelRecord:
    """Read the record of the model in `folder`; raise FileNotFoundError or Corrupt."""
    raw = (folder / RECORD_FILE).read_bytes()
    try:
        fields = msgspec.json.decode(raw, type=dict[str, Any])
        fields |= {"path": str(folder), "name": name_of(folder.name)}
        record = msgspec.convert(fields, ModelRecord, dec_hook=_as_path)
    except msgspec.MsgspecError as error:
        raise Corrupt(
            f"The record of model {name_of(folder.name)!r} is damaged ({error}). "
            f"Remove the model and import it again."
        ) from error
    if record.version > RECORD_VERSION:
        raise Corrupt(
            f"Model {name_of(folder.name)!r} was imported by a newer batchgen. Upgrade, or import "
            "it again."
        )
    return record


def _as_path(kind: type, value: Any) -> Path:
    assert kind is Path
    return Path(value)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(files: Mapping[str, str]) -> str:
    """Return the SHA-256 of a file list, as `sha256sum FILES | sha256sum` prints it."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
