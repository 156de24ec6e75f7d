"""The pepper: a secret of the store without which the digests of keys say nothing.

<home>/api-pepper     64 hexadecimal digits, readable by its owner only

A copy of the database alone, such as a backup, is not enough to check guesses of keys. If the file
is lost, no key is valid any more, and new keys must be made.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final

from batchgen.errors import Corrupt
from batchgen.storage.durable_files import make_private
from batchgen.storage.once import write_once

PEPPER_FILE: Final = "api-pepper"

_PEPPER: Final = re.compile(r"[0-9a-f]{64}")


class Pepper:
    """The pepper of one home. It never changes, so it is read once."""

    def __init__(self, home: Path) -> None:
        self._file = home / PEPPER_FILE
        self._known: bytes | None = None

    def read(self) -> bytes | None:
        """Return the pepper, None if the home has none yet, so that no key can be valid.

        Raises Corrupt if the file holds something else.
        """
        if self._known is None:
            self._known = self._look()
        return self._known

    def ensure(self) -> bytes:
        """Return the pepper; create it first if the home has none. Raises Corrupt."""
        known = self.read()
        if known is None:
            make_private(self._file.parent)
            write_once(self._file, f"{secrets.token_hex(32)}\n".encode(), mode=0o600)
            known = self.read()
            assert known is not None, "it was written just now"
        return known

    def _look(self) -> bytes | None:
        try:
            text = self._file.read_text(encoding="ascii", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if _PEPPER.fullmatch(text) is None:
            raise Corrupt(
                f"{self._file} does not hold the secret that keys are checked with. Restore it "
                "from a backup of the home; if there is none, remove it and make new keys."
            )
        return bytes.fromhex(text)
