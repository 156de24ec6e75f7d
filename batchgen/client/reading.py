"""The requests that read results, and a dataset that is removed when nobody uses it."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final
from urllib.parse import quote

from batchgen.client.calls import Call, get, job_path
from batchgen.dataset.manifest import MANIFEST
from batchgen.library.dataset import Dataset

HASHING: Final = 3600.0  # seconds in which a server reads every byte of a dataset


class TemporaryDataset(Dataset):
    """A dataset in a temporary folder, which is removed with this object."""

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path)
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a temporary folder, which is removed if the block fails."""
    folder = Path(mkdtemp(prefix="batchgen-"))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def lines(job: str, form: str, *, partial: bool) -> Call[Any]:
    """Return the request of all rows as JSON Lines; `form` is `jsonl` or `openai`."""
    return get(job_path(job, "results"), {"format": form, "partial": partial})


def manifest(job: str) -> Call[Any]:
    """Return the request of the manifest of a dataset."""
    return file(job, MANIFEST)


def verification(job: str) -> Call[list[str]]:
    """Return the request that compares a dataset with its manifest, on the server."""
    path = job_path(job, "verification")
    return Call(method="GET", path=path, decode=lambda value: value["problems"], timeout=HASHING)


def file(job: str, path: str) -> Call[Any]:
    """Return the request of one file of a dataset."""
    return get(job_path(job, "files", quote(path)))
