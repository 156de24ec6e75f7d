"""The models of one home: `models/<name>/` holds the files and the record that pins them."""

from __future__ import annotations

import builtins
import fcntl
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from batchgen.errors import ModelError, ModelExists, UnknownModel
from batchgen.models.describe import Description
from batchgen.models.endpoint import ARCHITECTURE, UNKNOWN_CONTEXT, Endpoint
from batchgen.models.names import check_name, folder_name, is_name, name_of, unknown_model
from batchgen.models.record import (
    RECORD_FILE,
    RECORD_VERSION,
    ModelRecord,
    hash_file,
    hash_files,
    read_record,
    write_record,
)
from batchgen.models.sources import fetch
from batchgen.models.trust.confined import run_confined
from batchgen.models.trust.references import check_references
from batchgen.storage.durable_files import exists, fsync, make_folder, make_private, make_read_only

LOCK_FILE = ".lock"
TEMPORARY = ".tmp-"  # prefix of folders of unfinished imports and removals


@dataclass(frozen=True, slots=True)
class Registry:
    """The registered models, by name, below one folder. Imports and removals are atomic."""

    root: Path

    def import_model(self, name: str, source: str | Path) -> ModelRecord:
        """Pin the model at `source` under `name`; see `batchgen.models.sources` for sources.

        Raise InvalidParameter (name), ModelExists, UnsafeModel, UnsupportedModel or ModelError.
        """
        check_name(name)
        try:
            with self._locked():
                self._import(name, str(source))
        except OSError as error:
            raise ModelError(
                f"{source} cannot be imported into {self.root}: {error.strerror or error}"
                f"{f' ({error.filename})' if error.filename else ''}. Nothing was kept."
            ) from error
        return self.get(name)

    def add_endpoint(
        self, name: str, endpoint: Endpoint, *, max_length: int = UNKNOWN_CONTEXT
    ) -> ModelRecord:
        """Register a model that lies behind an endpoint; raise InvalidParameter or ModelExists."""
        check_name(name)
        try:
            with self._locked(), self._new(name) as folder:
                _write_endpoint(name, folder, endpoint, max_length)
        except OSError as error:
            raise ModelError(f"{name} cannot be registered in {self.root}: {error}.") from error
        return self.get(name)

    def change_endpoint(self, name: str, endpoint: Endpoint, *, max_length: int) -> ModelRecord:
        """Replace what is known of a registered endpoint; raise UnknownModel."""
        with self._locked(), self._temporary() as folder:
            kept = self.get(name).path
            _write_endpoint(name, folder, endpoint, max_length)
            (folder / RECORD_FILE).replace(kept / RECORD_FILE)
            fsync(kept)
        return self.get(name)

    def get(self, name: str) -> ModelRecord:
        """Return the record of `name`; raise UnknownModel, which suggests similar names."""
        try:
            if is_name(name):
                return read_record(self.root / folder_name(name))
        except FileNotFoundError:
            pass
        raise self._unknown(name)

    def names(self) -> builtins.list[str]:
        """Return the registered names, sorted."""
        # not glob, which skips folders that it may not read
        folders = self.root.iterdir() if exists(self.root) else ()
        names = (path.name for path in folders if not path.name.startswith("."))
        return sorted(name_of(name) for name in names if exists(self.root / name / RECORD_FILE))

    def remove(self, name: str) -> None:
        """Remove the model and delete its files; raise UnknownModel."""
        with self._locked():
            if name not in self.names():
                raise self._unknown(name)
            # Renamed first, so that the model is gone at once; deleting the files takes longer.
            (self.root / folder_name(name)).rename(self.root / f"{TEMPORARY}{secrets.token_hex(6)}")
            self._sweep()

    def verify(self, name: str) -> builtins.list[str]:
        """Return one sentence for each file that is missing, changed or extra; [] if none is."""
        record = self.get(name)
        present = {path.name for path in record.path.iterdir()} - {RECORD_FILE}
        problems = []
        for file, digest in sorted(record.files.items()):
            if file not in present:
                problems.append(f"{file} is missing")
            elif (record.path / file).is_symlink():
                problems.append(f"{file} is a link")
            elif not (record.path / file).is_file() or hash_file(record.path / file) != digest:
                problems.append(f"{file} has changed")
        problems += [
            f"{file} is not part of the model" for file in sorted(present - {*record.files})
        ]
        return problems or _outside_references(record.path)

    def list(self) -> builtins.list[ModelRecord]:
        """Return the records of all models, by name."""
        return [self.get(name) for name in self.names()]

    def _import(self, name: str, source: str) -> None:
        with self._new(name) as folder:
            _pin(name, folder, fetch(source, folder))

    @contextmanager
    def _new(self, name: str) -> Iterator[Path]:
        """Yield an empty folder, which becomes that of the model; the caller holds the lock."""
        if exists(self.root / folder_name(name)):
            raise ModelExists(
                f"A model named {name!r} is registered. Choose another name, "
                f"or remove it with `batchgen models rm {name}`."
            )
        with self._temporary() as folder:
            yield folder
            folder.rename(self.root / folder_name(name))
        fsync(self.root)

    def _unknown(self, name: str) -> UnknownModel:
        return unknown_model(name, self.names())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the folder; if the process dies, the kernel frees the lock."""
        make_private(self.root.parent)
        make_folder(self.root)
        with (self.root / LOCK_FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._sweep()
            yield

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        folder = self.root / f"{TEMPORARY}{secrets.token_hex(6)}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Delete folders that killed processes left; the caller must hold the lock."""
        for path in self.root.glob(f"{TEMPORARY}*"):
            shutil.rmtree(path)


def _outside_references(folder: Path) -> builtins.list[str]:
    """Return why files of a model name files outside its folder, [] if none do."""
    try:
        check_references(folder)
    except ModelError as error:
        return [error.message]
    return []


def _pin(name: str, folder: Path, origin: str) -> None:
    """Check and hash the fetched files, write the record, and sync everything to disk.

    The files get the mode of the read-only record, because a converter may have created them
    readable for its own user only.
    """
    description = msgspec.json.decode(
        run_confined("batchgen.models.trust.check_process", folder.resolve()), type=Description
    )
    paths = sorted(folder.iterdir())
    files = {path.name: hash_file(path) for path in paths}
    record = ModelRecord(
        name=name,
        path=folder,
        dtype=description.dtype,
        max_length=description.max_length,
        sha256=hash_files(files),
        architecture=description.architecture,
        chat_template=description.chat_template,
        source=origin,
        files=files,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_record(record, folder)
    make_read_only(folder / RECORD_FILE)
    for path in paths:
        path.chmod((folder / RECORD_FILE).stat().st_mode)
    for path in (*paths, folder / RECORD_FILE, folder):
        fsync(path)


def _write_endpoint(name: str, folder: Path, endpoint: Endpoint, max_length: int) -> None:
    """Write the record of an endpoint into its folder."""
    record = ModelRecord(
        name=name,
        path=folder,
        dtype="-",
        max_length=max_length,
        sha256=endpoint.sha256(),
        architecture=ARCHITECTURE,
        chat_template=True,
        source=endpoint.url,
        files={},
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        endpoint=endpoint,
        version=RECORD_VERSION,
    )
    write_record(record, folder)
    make_read_only(folder / RECORD_FILE)
    for path in (folder / RECORD_FILE, folder):
        fsync(path)
