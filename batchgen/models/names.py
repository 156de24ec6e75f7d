"""What a model may be called, and what its folder is called then.

smollm2-135m        ──► models/smollm2-135m
Qwen/Qwen3-0.6B     ──► models/Qwen%2FQwen3-0.6B      as the hub and the lines of others call it

A folder stays one name below the registry, whatever the model is called: no part of a name begins
with a dot, and % is in none.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from batchgen.errors import InvalidParameter

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"{_PART}(?:/{_PART})?")


def is_name(name: str) -> bool:
    """Tell whether a model may be called so."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raise InvalidParameter unless a model may be called so."""
    if not is_name(name):
        raise InvalidParameter(
            f"{name!r} is not a model name: NAME or OWNER/NAME, each of up to 96 letters, digits, "
            "'.', '_' and '-', beginning with a letter or a digit.",
            param="name",
        )


def folder_name(name: str) -> str:
    """Return the name of the folder of a model."""
    return quote(name, safe="")


def name_of(folder: str) -> str:
    """Return the name of the model in a folder of this name."""
    return unquote(folder)
