"""A finished dataset at a place of the user's choice, as a copy or moved, manifest last.

    copy    files ──► OUT/.batchgen/export-*.tmp ──► summed ──► renamed to their place ──► manifest
    move    files ──► summed ──► renamed to their place ──► manifest

Nothing there shares an inode with what batchgen keeps, and everything may be written as the umask
says. A file appears under its name only whole and checked, so an export cut short is run again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchgen.dataset.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    decode_manifest,
    local_path,
    read_manifest_bytes,
)
from batchgen.dataset.verify import check_file, files_in
from batchgen.errors import Corrupt, InvalidParameter, OutputConflict
from batchgen.storage.durable_files import copy_file, exists, fsync, make_folder, sha256_of
from batchgen.storage.storage import writing


def export_dataset(folder: Path, out: Path, *, move: bool = False) -> Manifest:
    """Make `out` a copy of the dataset in `folder` and return its manifest.

    With `move` the files themselves go there, from the same file system, and the source is no
    dataset any more. Everything in `out/.batchgen/` but the manifest is left alone.
    Running it again completes or confirms what is there.

    Raises OutputConflict where `out` holds another dataset or files of somebody else, Corrupt
    where a file of the source is missing or changed, InvalidParameter where `out` cannot be
    written.
    """
    data = read_manifest_bytes(folder)
    manifest = decode_manifest(data, folder)
    _refuse_other(out, data, manifest)
    try:
        _make_own_folder((out / MANIFEST).parent)
        move = move and folder.stat().st_dev == out.stat().st_dev
        for entry in manifest.files:
            _place(folder, out, entry, move=move)
        for path in {local_path(out, entry).parent for entry in manifest.files}:
            fsync(path)
        if _manifest_of(out) is None:
            with writing(out / MANIFEST) as file:
                file.write(data)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        if error.filename and Path(error.filename).is_relative_to(folder):
            raise  # it is the dataset that may not be read
        raise InvalidParameter(f"{out} cannot be written: {error}", param="output") from error
    return manifest


def check_free(out: Path) -> None:
    """Raise OutputConflict where `out` holds anything that an export would have to refuse.

    A folder is free where it is missing, empty, or holds dot-names alone and no manifest. Asked
    before a job starts, so that it is not asked when the answers are there.
    """
    if exists(out) and not out.is_dir():
        raise OutputConflict(f"{out} is not a folder. Choose another with -o.")
    if _manifest_of(out) is not None:
        raise OutputConflict(f"{out} holds a dataset already. Choose another folder with -o.")
    if exists(out):
        _refuse_files(out, set())


def _make_own_folder(path: Path) -> None:
    make_folder(path)
    for pattern in ("export-*.tmp", ".manifest.json.*.tmp"):  # of an export that was killed
        for left in path.glob(pattern):
            left.unlink()


def _refuse_other(out: Path, data: bytes, manifest: Manifest) -> None:
    if exists(out) and not out.is_dir():
        raise OutputConflict(f"{out} is not a folder. Choose another with -o.")
    found = _manifest_of(out)
    if found == data:
        return
    if found is not None:
        raise OutputConflict(f"{out} holds another dataset. Choose another folder with -o.")
    if exists(out):
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


def _place(folder: Path, out: Path, entry: FileEntry, *, move: bool) -> None:
    source, target = local_path(folder, entry), local_path(out, entry)
    if target.is_symlink() or exists(target):
        # Ours from an export that was cut short, or not ours at all.
        if check_file(out, entry) is not None:
            raise OutputConflict(
                f"{target} differs from the dataset. Remove it, or choose another folder with -o."
            )
        return
    if not exists(source):
        raise Corrupt(f"{source} is missing. See `batchgen verify`.")
    make_folder(target.parent)
    with _pending(out) as pending:
        if move:
            pending.touch(exist_ok=False)
            source.chmod(pending.stat().st_mode)  # as a file is made here
            taken = source
        else:
            copy_file(source, pending)
            taken = pending
        if sha256_of(taken) != entry.sha256:
            raise Corrupt(f"{source} was changed. See `batchgen verify`.")
        fsync(taken)
        taken.rename(target)


@contextmanager
def _pending(out: Path) -> Iterator[Path]:
    """Yield the name of a file to be, which is gone after the block."""
    path = (out / MANIFEST).parent / f"export-{secrets.token_hex(6)}.tmp"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
