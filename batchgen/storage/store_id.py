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
    """Return the id of the store in a folder, None where there is none that can be read.

    Raises OSError where the folder refuses to be read.
    """
    try:
        text = (root / STORE_ID).read_text(encoding="ascii", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return text if _ID.fullmatch(text) else None


def ensure_store_id(root: Path) -> str | None:
    """Return the id of the store in a folder, giving it one first where it has none.

    Of several processes that do so at once exactly one writes the file. Returns None where there
    is a file that holds no id.
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
    """Give a whole file its name unless another process was faster."""
    try:
        os.link(pending, target)  # unlike a rename it never replaces
    except FileExistsError:
        return
    except OSError:  # a file system without hard links: no half of it can be seen for long
        with suppress(FileExistsError), target.open("xb") as file:
            file.write(pending.read_bytes())
            file.flush()
            os.fsync(file.fileno())
