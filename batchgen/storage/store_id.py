"""The id of a store: one small file in its folder, written once and never changed.

<home>/store-id     0193f6d2a8d47c1e9b1f6a3c5e7d9b02
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from batchgen.storage.durable_files import exists, fsync, make_private

STORE_ID: Final = "store-id"

_ID: Final = re.compile(r"[0-9a-f]{32}")


def read_store_id(root: Path) -> str | None:
    """Return the id of the store in a folder, None if there is no valid id.

    Raises OSError if the file cannot be read.
    """
    try:
        text = (root / STORE_ID).read_text(encoding="ascii", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return text if _ID.fullmatch(text) else None


def ensure_store_id(root: Path) -> str | None:
    """Return the id of the store in a folder; create one first if it has none.

    If several processes call this at once, exactly one writes the file. Returns None if the file
    exists and holds no valid id.
    """
    if not exists(root / STORE_ID):
        make_private(root)
        _write_once(root, secrets.token_hex(16))
    return read_store_id(root)


def _write_once(root: Path, store: str) -> None:
    pending = root / f".{STORE_ID}.{secrets.token_hex(6)}.tmp"
    try:
        pending.write_text(f"{store}\n", encoding="ascii")
        fsync(pending)
        _place(pending, root / STORE_ID)
    finally:
        pending.unlink(missing_ok=True)
    fsync(root)


def _place(pending: Path, target: Path) -> None:
    """Give a complete file its name, unless another process has already done so."""
    try:
        os.link(pending, target)  # unlike a rename, a link never replaces a file
    except FileExistsError:
        return
    except OSError:  # no hard links here: others may see a partial file for a moment
        with suppress(FileExistsError), target.open("xb") as file:
            file.write(pending.read_bytes())
            file.flush()
            os.fsync(file.fileno())
