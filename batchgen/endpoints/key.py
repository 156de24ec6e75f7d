"""The API key of an endpoint: read from an environment variable or a file, never stored."""

from __future__ import annotations

import os
from pathlib import Path

from batchgen.errors import InvalidParameter
from batchgen.models.endpoint import Endpoint

LONGEST = 4096  # characters
HIDDEN = "***"


class ApiKey:
    """The key of one endpoint. It appears in no text of this object."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Read the key; raise InvalidParameter if the variable or the file has none."""
        self._endpoint = endpoint
        self._text = self._read()

    @property
    def headers(self) -> dict[str, str]:
        """The headers that prove who asks."""
        return {"Authorization": f"Bearer {self._text}"} if self._text else {}

    def renew(self) -> None:
        """Read the key again, because it may have been changed; keep the old one if it is gone."""
        try:
            self._text = self._read()
        except InvalidParameter:
            return

    def hidden(self, text: str) -> str:
        """Return a text of the server without the key, which servers quote in errors."""
        return text.replace(self._text, HIDDEN) if self._text else text

    def _read(self) -> str:
        if self._endpoint.api_key_env is not None:
            found = os.environ.get(self._endpoint.api_key_env, "")
            return _checked(found, f"The variable {self._endpoint.api_key_env}")
        if self._endpoint.api_key_file is not None:
            return _checked(_content(self._endpoint.api_key_file), "The file of the API key")
        return ""


def _content(path: str) -> str:
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            return file.read(LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidParameter(
            f"The file of the API key, {path}, cannot be read: {reason}.", param="api_key_file"
        ) from None


def _checked(text: str, where: str) -> str:
    key = text.strip()
    if not key or len(key) > LONGEST or not key.isascii() or not key.isprintable():
        raise InvalidParameter(f"{where} holds no API key.", param="api_key")
    return key
