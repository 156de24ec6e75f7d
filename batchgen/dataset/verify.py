"""Check that a dataset folder holds exactly the files of its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchgen.dataset.manifest import FileEntry, local_path, read_manifest
from batchgen.errors import Corrupt
from batchgen.storage.durable_files import exists, sha256_of


def verify_dataset(folder: Path, *, manifest_sha256: str | None = None) -> list[str]:
    """Return one sentence for each missing, changed and extra file; an empty list means no error.

    Every file is read and hashed. With `manifest_sha256`, from SQL, the manifest is checked too.
    Names with a leading dot at the top of the folder are not part of the dataset and are skipped;
    readers skip them too.
    """
    try:
        manifest = read_manifest(folder, sha256=manifest_sha256)
    except Corrupt as error:
        return [error.message]
    problems = [problem for entry in manifest.files if (problem := check_file(folder, entry))]
    listed = {entry.path for entry in manifest.files}
    extra = sorted(path for path in files_in(folder) if path not in listed)
    return problems + [f"{path} is extra: the manifest does not name it." for path in extra]


def check_file(folder: Path, entry: FileEntry) -> str | None:
    """Return the fault of one file of a dataset as a sentence, None if there is none."""
    path = local_path(folder, entry)
    if not path.is_symlink() and not exists(path):
        return f"{entry.path} is missing."
    if path.is_symlink() or not path.is_file():
        return f"{entry.path} was changed: it is not a plain file."
    size = path.stat().st_size
    if size != entry.bytes:
        return f"{entry.path} was changed: it has {size} bytes, not {entry.bytes}."
    if sha256_of(path) != entry.sha256:
        return f"{entry.path} was changed: its SHA-256 is not the one recorded."
    return None


def files_in(folder: Path) -> Iterator[str]:
    """Yield the relative path of every file below the folder that may belong to the dataset.

    A link counts as a file and is never followed. Names with a dot at the top are left out.
    """
    for top in folder.iterdir():
        if top.name.startswith("."):
            continue
        if top.is_symlink() or not top.is_dir():
            yield top.name
            continue
        for path in top.rglob("*"):
            if path.is_symlink() or not path.is_dir():
                yield path.relative_to(folder).as_posix()
