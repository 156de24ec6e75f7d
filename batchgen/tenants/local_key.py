"""The key of the local stack: made at its first start, for the user who owns the home.

<home>/api-key     the whole key, readable by its owner only
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchgen.storage.once import write_once
from batchgen.tenants.keys import KeyManager
from batchgen.tenants.principal import Scope

KEY_FILE: Final = "api-key"
KEY_NAME: Final = "local stack"

_LONGEST = 1_000  # bytes; a longer file holds no key


def local_key(keys: KeyManager, home: Path, tenant: str) -> str:
    """Return the key in the home's own file; make one if there is none, or none that is valid.

    To replace the key, revoke it. Call this from one process of a home only.
    """
    file = home / KEY_FILE
    known = _read(file)
    if known is not None:
        if keys.authenticate(known) is not None:
            return known
        file.unlink()
    new = keys.create(tenant, scopes=frozenset(Scope), name=KEY_NAME)
    write_once(file, f"{new.key}\n".encode(), mode=0o600)
    return new.key


def _read(file: Path) -> str | None:
    try:
        with file.open("rb") as reader:
            return reader.read(_LONGEST).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
