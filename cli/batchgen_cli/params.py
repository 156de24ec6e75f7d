"""`--param KEY=VALUE`: decoding parameters on the command line."""

from __future__ import annotations

from typing import Any

import click
import orjson


class KeyValue(click.ParamType[tuple[str, Any]]):
    """KEY=VALUE; the value is JSON where it parses, else the text itself.

    temperature=0     → 0
    stop=["\\n\\n"]     → a list
    stop=END          → "END"
    """

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Split and parse one value."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} is not KEY=VALUE, such as temperature=0.", param, ctx)
        return key.strip(), parse_value(text)


def parse_value(text: str) -> Any:
    """Read text as JSON where it is JSON, else keep it."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


class Names(click.ParamType[tuple[str, ...]]):
    """NAME[,NAME]: names in one word, apart by commas."""

    name = "NAME[,NAME]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split one value."""
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(","))
        if not all(names):
            self.fail(f"{value!r} holds an empty name. Write NAME or NAME,NAME.", param, ctx)
        return names


def collect(
    ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    """Turn repeated --param options into one dict; naming a key twice is a usage error."""
    collected: dict[str, Any] = {}
    for key, value in pairs:
        if key in collected:
            raise click.BadParameter(f"{key} is given twice.", ctx=ctx, param=param)
        collected[key] = value
    return collected
