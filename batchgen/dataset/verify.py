"""Whether a dataset folder still holds what its manifest says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchgen.dataset.manifest import FileEntry, local_path, read_manifest
from batchgen.errors import Corrupt
from batchgen.storage.durable_files import exists, sha256_of


def verify_dataset(folder: Path, *, manifest_sha256: str | None = None) -> list[str]:
    """Return one sentence for each missing, changed and extra file; none means sound.

    Every file is read and summed. `manifest_sha256`, as SQL records it, pins the manifest itself.
    Names that begin with a dot at the top of the folder are no part of the dataset (readers skip
    them too) and are not looked at.
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
    """Return what is wrong with one file of a dataset, None where nothing is."""
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
    """Yield the path inside the folder of every file below it that could be dataset's.

    Links are files here, never followed; dot-names at the top are left out.
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
