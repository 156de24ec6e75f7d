"""A finished dataset at a place of the user's choice, by hard link or copy, manifest last.

    files ──► OUT/.batchgen/export-*.tmp ──► summed ──► renamed to their place ──► manifest

A file appears under its name only whole and checked, so an export cut short is simply run again.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from batchgen.errors import Corrupt, InvalidParameter, OutputConflict
from batchgen.io.folders import fsync, make_folder, sha256_of
from batchgen.io.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    decode_manifest,
    local_path,
    read_manifest_bytes,
)
from batchgen.io.storage import writing
from batchgen.io.verify import check_file, files_in


def export_dataset(folder: Path, out: Path) -> Manifest:
    """Make `out` a copy of the dataset in `folder` and return its manifest.

    Parquet files are hard links where the file system allows; the card is always a copy, for
    people edit it. Everything in `out/.batchgen/` but the manifest is left alone. Running it
    again completes or confirms what is there.

    Raises OutputConflict where `out` holds another dataset or files of somebody else, Corrupt
    where a file of the source is missing or changed, InvalidParameter where `out` cannot be
    written.
    """
    data = read_manifest_bytes(folder)
    manifest = decode_manifest(data, folder)
    _refuse_other(out, data, manifest)
    try:
        _make_own_folder((out / MANIFEST).parent)
        for entry in manifest.files:
            _place(folder, out, entry)
        for path in {local_path(out, entry).parent for entry in manifest.files}:
            fsync(path)
        if _manifest_of(out) is None:
            with writing(out / MANIFEST) as file:
                file.write(data)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InvalidParameter(f"{out} cannot be written: {error}", param="output") from error
    return manifest


def check_free(out: Path) -> None:
    """Raise OutputConflict where `out` holds anything that an export would have to refuse.

    A folder is free where it is missing, empty, or holds dot-names alone and no manifest. Asked
    before a job starts, so that it is not asked when the answers are there.
    """
    if out.exists() and not out.is_dir():
        raise OutputConflict(f"{out} is not a folder. Choose another with -o.")
    if _manifest_of(out) is not None:
        raise OutputConflict(f"{out} holds a dataset already. Choose another folder with -o.")
    if out.exists():
        _refuse_files(out, set())


def _make_own_folder(path: Path) -> None:
    make_folder(path)
    for left in path.glob("export-*.tmp"):  # by an export that was killed
        left.unlink()


def _refuse_other(out: Path, data: bytes, manifest: Manifest) -> None:
    if out.exists() and not out.is_dir():
        raise OutputConflict(f"{out} is not a folder. Choose another with -o.")
    found = _manifest_of(out)
    if found == data:
        return
    if found is not None:
        raise OutputConflict(f"{out} holds another dataset. Choose another folder with -o.")
    if out.exists():
        _refuse_files(out, {entry.path for entry in manifest.files})


def _refuse_files(out: Path, ours: set[str]) -> None:
    foreign = next((path for path in files_in(out) if path not in ours), None)
    if foreign is not None:
        raise OutputConflict(f"{out} holds {foreign} already. Choose another folder with -o.")


def _manifest_of(out: Path) -> bytes | None:
    try:
        return (out / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _place(folder: Path, out: Path, entry: FileEntry) -> None:
    target = local_path(out, entry)
    if target.is_symlink() or target.exists():
        # Ours from an export that was cut short, or not ours at all.
        if check_file(out, entry) is not None:
            raise OutputConflict(
                f"{target} differs from the dataset. Remove it, or choose another folder with -o."
            )
        return
    make_folder(target.parent)
    pending = (out / MANIFEST).parent / f"export-{secrets.token_hex(6)}.tmp"
    try:
        _link_or_copy(local_path(folder, entry), pending, entry)
        if sha256_of(pending) != entry.sha256:
            raise Corrupt(f"{local_path(folder, entry)} was changed. See `batchgen verify`.")
        fsync(pending)
        pending.rename(target)
    finally:
        pending.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path, entry: FileEntry) -> None:
    if not source.is_file():
        raise Corrupt(f"{source} is missing. See `batchgen verify`.")
    if entry.rows is not None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # another file system, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)
