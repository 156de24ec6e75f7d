"""The text of a key, and the digest that is stored instead of it.

bg_0f3a9c5e7d1b2468_qfJ0…43 characters…
   └ id, public      └ 32 random bytes, base64url
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final

_KEY: Final = re.compile(r"bg_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


def new_key() -> str:
    """Return the text of a key that nobody has."""
    return f"bg_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


def key_id_of(key: str) -> str | None:
    """Return the public id in the text of a key, None if the text has another form."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


def digest_of(key: str, pepper: bytes) -> str:
    """Return the digest of a key: HMAC-SHA-256 with the pepper, as hex."""
    return hmac.new(pepper, key.encode(), hashlib.sha256).hexdigest()
