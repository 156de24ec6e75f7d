"""Copy or move a finished dataset to a folder of the user's choice, the manifest last.

    copy    files ──► OUT/.batchgen/export-*.tmp ──► summed ──► renamed to their place ──► manifest
    move    files ──► summed ──► renamed to their place ──► manifest

An exported file shares no inode with a file that batchgen keeps, and its mode follows the umask. A
file gets its name only when it is complete and checked, so an interrupted export can run again.
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

    With `move` the files themselves are moved within one file system, and the source is not a
    dataset any more. Other files in `out/.batchgen/` are not changed. A second call completes or
    confirms the export.

    Raises OutputConflict if `out` holds another dataset or other files, Corrupt if a file of the
    source is missing or changed, InvalidParameter if `out` cannot be written.
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
            raise  # the dataset cannot be read; `out` is not the reason
        raise InvalidParameter(f"{out} cannot be written: {error}", param="output") from error
    return manifest


def check_target(out: Path, manifest: bytes) -> None:
    """Raise OutputConflict if an export of the dataset with this manifest to `out` would do so.

    Call this before the files are fetched from elsewhere.
    """
    _refuse_other(out, manifest, decode_manifest(manifest, out))


def check_free(out: Path) -> None:
    """Raise OutputConflict if `out` holds anything that an export would refuse.

    A folder is free if it is missing or empty, or if it holds only names with a leading dot and no
    manifest. Call this before a job starts, so that the conflict is not found when it has ended.
    """
    if exists(out) and not out.is_dir():
        raise OutputConflict(f"{out} is not a folder. Choose another.")
    if _manifest_of(out) is not None:
        raise OutputConflict(f"{out} holds a dataset already. Choose another folder.")
    if exists(out):
        _refuse_files(out, set())


def _make_own_folder(path: Path) -> None:
    make_folder(path)
    for pattern in ("export-*.tmp", ".manifest.json.*.tmp"):  # left by an export that was killed
        for left in path.glob(pattern):
            left.unlink()


def _refuse_other(out: Path, data: bytes, manifest: Manifest) -> None:
    if exists(out) and not out.is_dir():
        raise OutputConflict(f"{out} is not a folder. Choose another.")
    found = _manifest_of(out)
    if found == data:
        return
    if found is not None:
        raise OutputConflict(f"{out} holds another dataset. Choose another folder.")
    if exists(out):
        _refuse_files(out, {entry.path for entry in manifest.files})


def _refuse_files(out: Path, ours: set[str]) -> None:
    foreign = next((path for path in files_in(out) if path not in ours), None)
    if foreign is not None:
        raise OutputConflict(f"{out} holds {foreign} already. Choose another folder.")


def _manifest_of(out: Path) -> bytes | None:
    try:
        return (out / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _place(folder: Path, out: Path, entry: FileEntry, *, move: bool) -> None:
    source, target = local_path(folder, entry), local_path(out, entry)
    if target.is_symlink() or exists(target):
        # The file is from an interrupted export, or it is not part of this dataset.
        if check_file(out, entry) is not None:
            raise OutputConflict(
                f"{target} differs from the dataset. Remove it, or choose another folder."
            )
        return
    if not exists(source):
        raise Corrupt(f"{source} is missing. See `batchgen verify`.")
    make_folder(target.parent)
    with _pending(out) as pending:
        if move:
            pending.touch(exist_ok=False)
            source.chmod(pending.stat().st_mode)  # the mode that a new file gets here
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
    """Yield the path of a temporary file, which is removed after the block."""
    path = (out / MANIFEST).parent / f"export-{secrets.token_hex(6)}.tmp"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
