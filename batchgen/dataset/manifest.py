"""The manifest lists a dataset's files. It is written last: without it there is no dataset."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from batchgen.core.finish_reasons import UNCOUNTED, FinishReasons
from batchgen.core.kv_totals import UNMEASURED, KVTotals
from batchgen.core.numerics import Numerics
from batchgen.dataset.arrow_schema import SCHEMA_VERSION
from batchgen.errors import Corrupt

MANIFEST: Final = ".batchgen/manifest.json"  # path inside a dataset folder
_FILE_NAME: Final = re.compile(
    r"README\.md|data/train-\d{5,}-of-\d{5,}\.parquet|errors/errors-\d{5,}-of-\d{5,}\.parquet"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMeta:
    """The description of a dataset beside its rows. The same meta gives the same bytes."""

    job_id: str
    name: str | None  # the name that the user gave the job
    model: str  # registry name
    model_sha256: str
    engine_version: str
    params: dict[str, Any]  # the job's defaults for every row
    input_sha256: str
    n_rows: int  # records of the input: the dataset must hold exactly rows 0 … n_rows - 1
    created_at: float  # when the job was created, seconds since the epoch; not the time of writing
    prompts_origin: str | None = None  # the source of the prompts, one line of text
    model_license: str | None = None
    git_sha: str | None = None  # of the code, None if it is not known

    def schema_metadata(self) -> dict[str, str]:
        """Return the key-value metadata of every Parquet file of the dataset."""
        values = {
            "schema_version": str(SCHEMA_VERSION),
            "job_id": self.job_id,
            "model": self.model,
            "model_revision": self.model_sha256,
            "engine_version": self.engine_version,
            "sampling_params": msgspec.json.encode(self.params, order="sorted").decode(),
            "input_sha256": self.input_sha256,
            "created_at": self.created_text,
        }
        if self.git_sha is not None:
            values["git_sha"] = self.git_sha
        return {f"batchgen.{name}": value for name, value in values.items()}

    @property
    def created_text(self) -> str:
        """`created_at` as RFC 3339 text, UTC, to the microsecond."""
        moment = datetime.fromtimestamp(self.created_at, UTC)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a dataset."""

    path: str  # inside the folder, with forward slashes
    rows: int | None  # None where the file is not Parquet
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over the whole dataset."""

    rows: int = 0
    ok: int = 0
    errors: int = 0
    finish_reasons: FinishReasons = UNCOUNTED
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    # of the parts in SQL; rows that no part holds were never computed
    kv: KVTotals = UNMEASURED
    # of the engines that computed the rows, each once; empty if the parts do not name any
    numerics: tuple[Numerics, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Lists every file of a dataset with its SHA-256, and describes the dataset and its job."""

    schema_version: int = SCHEMA_VERSION
    meta: DatasetMeta
    totals: Totals
    files: list[FileEntry] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return the manifest as JSON text; equal manifests give equal bytes."""
        text = msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2)
        return text + b"\n"

    def data_files(self) -> list[FileEntry]:
        """Return the files of answered rows, in input order."""
        return [entry for entry in self.files if entry.path.startswith("data/")]

    def error_files(self) -> list[FileEntry]:
        """Return the files of failed rows, in input order; there may be none."""
        return [entry for entry in self.files if entry.path.startswith("errors/")]


def read_manifest(folder: Path, *, sha256: str | None = None) -> Manifest:
    """Return the manifest of a dataset folder.

    Raises Corrupt if the folder has none (so it is not a finished dataset), if its SHA-256 is not
    the one given, or if it names a file that a dataset cannot have.
    """
    return decode_manifest(read_manifest_bytes(folder, sha256=sha256), folder)


def read_manifest_bytes(folder: Path, *, sha256: str | None = None) -> bytes:
    """Return the manifest of a dataset folder as it is on disk; errors as in `read_manifest`."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Corrupt(f"{folder} is not a finished dataset: {MANIFEST} is missing.") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise Corrupt(f"{path} was changed: its SHA-256 is not the one recorded.")
    return data


def decode_manifest(data: bytes, folder: Path) -> Manifest:
    """Return the manifest that `data` encodes; raise Corrupt, which names `folder`."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{folder / MANIFEST} cannot be read: {error}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise Corrupt(
            f"{folder} has schema {manifest.schema_version}; this version reads {SCHEMA_VERSION}."
        )
    for entry in manifest.files:
        # Only these names are allowed, so a forged manifest cannot lead out of the folder.
        if _FILE_NAME.fullmatch(entry.path) is None:
            raise Corrupt(f"{folder / MANIFEST} names {entry.path!r}, which no dataset holds.")
    return manifest


def local_path(folder: Path, entry: FileEntry) -> Path:
    """Return the path of a file of the dataset."""
    return folder.joinpath(*PurePosixPath(entry.path).parts)
