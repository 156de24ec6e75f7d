"""A dataset of a server becomes a folder: each file is checked, the manifest comes last.

server ──► out/.batchgen/download/…  ──► out/…          what is there already is not sent again
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from batchgen.dataset.export import check_target, export_dataset
from batchgen.dataset.manifest import MANIFEST, FileEntry, decode_manifest, local_path
from batchgen.dataset.verify import check_file
from batchgen.errors import Corrupt
from batchgen.storage.durable_files import make_folder, make_private

FOLDER: Final = ".batchgen/download"


class Download:
    """The download of one dataset to a folder; the caller fetches the `missing` files.

    Before a file is fetched it raises OutputConflict if the folder holds something else, and
    Corrupt if the manifest is not the one recorded.
    """

    def __init__(self, out: Path, manifest: bytes, *, sha256: str | None) -> None:
        if sha256 is not None and hashlib.sha256(manifest).hexdigest() != sha256:
            raise Corrupt("The manifest of the dataset is not the one that the job ended with.")
        self._out = out
        self._folder = out / FOLDER
        self._entries = decode_manifest(manifest, out).files
        check_target(out, manifest)
        make_folder((self._folder / MANIFEST).parent)
        make_private(self._folder)
        (self._folder / MANIFEST).write_bytes(manifest)

    def missing(self) -> Iterator[FileEntry]:
        """Yield the files that neither the folder nor an interrupted download holds."""
        for entry in self._entries:
            if check_file(self._out, entry) and check_file(self._folder, entry):
                yield entry

    @contextmanager
    def receiving(self, entry: FileEntry) -> Iterator[BinaryIO]:
        """Open the file that a download writes; raise Corrupt if it is not the one asked for."""
        path = local_path(self._folder, entry)
        make_folder(path.parent)
        with path.open("wb") as file:
            yield file
        if fault := check_file(self._folder, entry):
            path.unlink()
            raise Corrupt(f"The download differs from the manifest of the dataset: {fault}")

    def finish(self) -> Path:
        """Put the files in their place, and return the folder."""
        export_dataset(self._folder, self._out, move=True)
        shutil.rmtree(self._folder)
        return self._out
