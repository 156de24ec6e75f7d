"""Columns: fields of a line that hold the caller's own data and are copied to the output.

A field is a column if its name is neither a parameter nor nearly spelled like one, or if the
job's `columns` name it:

    {"prompt": …, "max_tokens": 5, "max_tokns": 5, "answer": 40, "n": 3}     columns = ["n"]
                   parameter        an error        column        column
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from batchgen.errors import InvalidParameter
from batchgen.requests.fields import SHORTHAND_FIELDS
from batchgen.requests.values.line_error import LineError, quoted
from batchgen.spelling import Spelling

#: The parameter of a job that names columns.
COLUMNS: Final = "columns"

# A misspelt one changes nothing, so it may be a column: a batch never streams.
_HARMLESS: Final = frozenset({"stream"})
# Usual names of data that are spelled nearly like a parameter. The test of this module lists more
# names, which need no entry here.
_ORDINARY: Final = frozenset(
    {"bos_token_id", "function", "in_tokens", "num_teams", "predict", "typical"}
)

_SPELLING: Final = Spelling(
    (SHORTHAND_FIELDS.keys() - _HARMLESS) | {"custom_id"}, ordinary=_ORDINARY
)


def read_columns(defaults: Mapping[str, Any]) -> frozenset[str]:
    """Return the columns that the parameters of a job name; raise InvalidParameter."""
    names = defaults.get(COLUMNS)
    if names is None:
        return frozenset()
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, str) and name.strip() for name in names
    ):
        raise InvalidParameter(
            "'columns' must be a list of names: --columns NAME[,NAME].", param=COLUMNS
        )
    return frozenset(names)


def meant(name: str) -> str | None:
    """Return the parameter that a field's name misspells, None if it misspells none."""
    return _SPELLING.meant(name)


def is_column(name: str) -> bool:
    """Return whether the name alone makes a field of a shorthand line a column."""
    return name not in SHORTHAND_FIELDS and meant(name) is None


def split(data: dict[str, Any], columns: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the fields of a line into those that are not in `columns` and those that are."""
    kept = {name: value for name, value in data.items() if name in columns}
    if not kept:
        return data, kept
    return {name: value for name, value in data.items() if name not in kept}, kept


def check_misspelt(names: Iterable[str]) -> None:
    """Raise LineError if a name is spelled nearly like a parameter."""
    for name in names:
        if (known := meant(name)) is not None:
            raise LineError(
                "unknown_parameter",
                f"{quoted(name)} is spelled nearly like '{known}': correct it. "
                "Is it a column? Say so with --columns.",
                name,
            )


def check_beside_body(fields: Mapping[str, Any]) -> None:
    """Raise LineError if a parameter is beside the body of an OpenAI line instead of in it."""
    for name, value in fields.items():
        if name in SHORTHAND_FIELDS and value is not None:
            raise LineError(
                "unknown_parameter",
                f"'{name}' stands beside 'body': move it into it. "
                "Is it a column? Say so with --columns.",
                name,
            )
    check_misspelt(fields)
