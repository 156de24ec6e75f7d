r"""Templates: the JSON text of one example row, into which the columns of many rows are filled.

    example    {"custom_id": "\ue000custom_id\ue000", "seed": "\ue001seed\ue001"}
    template   {"custom_id":"‸","seed":‸}
                             ▲       ▲ a value of any type, or null
                             └ a part of a string

So the form of a row is written once, by the function that makes the example.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from batchgen.dataset.streams.json_columns import joined

if TYPE_CHECKING:
    import pyarrow as pa

# Private-use characters, which no example holds otherwise.
_IN_STRING, _VALUE = "\ue000", "\ue001"
_HOLE: Final = re.compile(f'{_IN_STRING}(\\w+){_IN_STRING}|"{_VALUE}(\\w+){_VALUE}"')


def part(name: str) -> str:
    """Return a text that stands for the escaped text of a column, inside of a JSON string."""
    return f"{_IN_STRING}{name}{_IN_STRING}"


def value(name: str) -> Any:
    """Return what stands for a whole JSON value of a column."""
    return f"{_VALUE}{name}{_VALUE}"


class Template:
    """The text of one example, with holes where `part` and `value` stand."""

    def __init__(self, example: Any) -> None:
        text = orjson.dumps(example).decode()
        #: [(name of a column, text after it)], the text before the first hole under no name.
        self._pieces: list[tuple[str | None, str]] = []
        name, end = None, 0
        for hole in _HOLE.finditer(text):
            self._pieces.append((name, text[end : hole.start()]))
            name, end = hole[1] or hole[2], hole.end()
        self._pieces.append((name, text[end:]))

    def fill(self, columns: Mapping[str, pa.Array], *, end: str = "") -> pa.Array:
        """Return a text for each row: the template with the JSON texts of the columns, and `end`.

        No text of a column may be null.
        """
        parts: list[pa.Array | str] = []
        for name, text in self._pieces:
            parts += [text] if name is None else [columns[name], text]
        return joined(*parts, end)
