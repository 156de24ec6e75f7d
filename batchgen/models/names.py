"""Names of models, and the names of their folders.

smollm2-135m        ──► models/smollm2-135m
Qwen/Qwen3-0.6B     ──► models/Qwen%2FQwen3-0.6B      the hub's name, also used in input lines

Every model has one folder directly below the registry. No part of a name begins with a dot, and no
name contains %.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import quote, unquote

from batchgen.errors import InvalidParameter, UnknownModel

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"{_PART}(?:/{_PART})?")


def is_name(name: str) -> bool:
    """Return whether `name` is a valid model name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raise InvalidParameter if `name` is not a valid model name."""
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


def unknown_model(name: str, known: Iterable[str]) -> UnknownModel:
    """Return the error for a name that is not among the known ones; it suggests similar names."""
    close = get_close_matches(name, list(known), n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else "See `batchgen models ls`."
    return UnknownModel(f"No model named {name!r} is registered. {hint}")
