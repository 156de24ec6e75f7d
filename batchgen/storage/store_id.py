"""The id of a store: one small file in its folder, written once and never changed.

<home>/store-id     0193f6d2a8d47c1e9b1f6a3c5e7d9b02
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final

from batchgen.storage.durable_files import exists, make_private
from batchgen.storage.once import write_once

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
        write_once(root / STORE_ID, f"{secrets.token_hex(16)}\n".encode())
    return read_store_id(root)
