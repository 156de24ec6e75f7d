"""Columns: the fields of a line that are the caller's own data and go to the output as they are.

A field is a column where its name is no parameter's and is not spelled nearly like one, or where
the job's `columns` say so:

    {"prompt": …, "max_tokens": 5, "max_tokns": 5, "answer": 40, "n": 3}     columns = ["n"]
                   parameter        an error        column        column
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from batchgen.errors import InvalidParameter
from batchgen.requests.fields import SHORTHAND_FIELDS
from batchgen.requests.line_error import LineError, quoted
from batchgen.spelling import Spelling

#: The parameter of a job that names columns.
COLUMNS: Final = "columns"

# Whoever misspells these gets what was meant: a batch never streams.
_HARMLESS: Final = frozenset({"stream"})
# Names of data that come near a parameter's. The table in tests/unit/io/test_columns.py has more,
# which the measure lets pass by itself.
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
    """Return the parameter that a field's name misspells, None where the name is a column's."""
    return _SPELLING.meant(name)


def is_column(name: str) -> bool:
    """Tell whether a field of a shorthand line is the caller's data by its name alone."""
    return name not in SHORTHAND_FIELDS and meant(name) is None


def split(data: dict[str, Any], columns: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of a line that may mean something, and those that are columns."""
    kept = {name: value for name, value in data.items() if name in columns}
    if not kept:
        return data, kept
    return {name: value for name, value in data.items() if name not in kept}, kept


def check_misspelt(names: Iterable[str]) -> None:
    """Raise LineError where the name of a field is nearly a parameter's."""
    for name in names:
        if (known := meant(name)) is not None:
            raise LineError(
                "unknown_parameter",
                f"{quoted(name)} is spelled nearly like '{known}': correct it. "
                "Is it a column? Say so with --columns.",
                name,
            )


def check_beside_body(fields: Mapping[str, Any]) -> None:
    """Raise LineError where a parameter stands beside the body of an OpenAI line, not in it."""
    for name, value in fields.items():
        if name in SHORTHAND_FIELDS and value is not None:
            raise LineError(
                "unknown_parameter",
                f"'{name}' stands beside 'body': move it into it. "
                "Is it a column? Say so with --columns.",
                name,
            )
    check_misspelt(fields)
