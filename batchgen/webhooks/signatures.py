"""Signatures after Standard Webhooks (https://www.standardwebhooks.com), version v1.

webhook-id: evt_0190…            the same in every attempt: a receiver drops repetitions
webhook-timestamp: 1719168000    of the attempt: a receiver refuses old ones
webhook-signature: v1,K5oZf…     base64 of HMAC-SHA-256 over "id.timestamp.body"
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32


def new_secret() -> str:
    """Return a random secret in the form that receivers' libraries take."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(body: bytes, *, identity: str, timestamp: int, secret: str) -> dict[str, str]:
    """Return the headers that prove the sender and the time of a body."""
    signed = f"{identity}.{timestamp}.".encode() + body
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
