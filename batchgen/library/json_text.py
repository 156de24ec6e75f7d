"""Convert Python objects to JSON text."""

from __future__ import annotations

from typing import Any, Final

import orjson

_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE


def json_line(value: Any) -> bytes:
    """Return a value as one line of JSON; NaN becomes null, and an array becomes a list.

    Raises TypeError, without quoting the value, if JSON cannot hold it.
    """
    return orjson.dumps(value, default=_as_list, option=_OPTIONS)


def as_json(value: Any) -> Any:
    """Return the value after a round trip through JSON: tuples become lists, keys text."""
    return orjson.loads(json_line(value))


def _as_list(value: Any) -> Any:
    """Return the items of an array that orjson cannot write, such as numpy's of objects."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError
