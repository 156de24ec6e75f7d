"""`--param KEY=VALUE`: decoding parameters on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import orjson


class KeyValue(click.ParamType[tuple[str, Any]]):
    """KEY=VALUE; the value is parsed as JSON if it is JSON, else it is the text itself.

    temperature=0     → 0
    stop=["\\n\\n"]     → a list
    stop=END          → "END"
    regex=@FILE       → the content of the file; @@ stands for a text that begins with @
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
        try:
            return key.strip(), parse_value(_content(text))
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not UTF-8"
            if isinstance(error, OSError):
                reason = (error.strerror or str(error)).lower()
            self.fail(
                f"the file {text[1:]} of {value!r} cannot be read: {reason}. "
                f"{key.strip()}=@{text} is the text itself.",
                param,
                ctx,
            )


def _content(text: str) -> str:
    """Return the content of the file that @FILE names, or the text itself."""
    if len(text) < 2 or not text.startswith("@"):
        return text
    if text.startswith("@@"):
        return text[1:]
    # editors add a final line end, which is no part of the value
    return Path(text[1:]).expanduser().read_text(encoding="utf-8").removesuffix("\n")


def parse_value(text: str) -> Any:
    """Return the value of JSON text, or the text itself if it is not JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


class Names(click.ParamType[tuple[str, ...]]):
    """NAME[,NAME]: names in one word, separated by commas."""

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


def as_param(option: str, args: Sequence[str]) -> str | None:
    """Return a hint how to give a decoding parameter that was written as an option, else None."""
    from batchgen.requests.fields import SHORTHAND_FIELDS  # needed only for a wrong command line

    name = option.lstrip("-").replace("-", "_")
    if name not in SHORTHAND_FIELDS:
        return None
    value = _value_of(option, args) or "VALUE"
    return f"No such option {option!r}. It is a decoding parameter: -p {name}={value}"


def _value_of(option: str, args: Sequence[str]) -> str | None:
    for word, following in zip_longest(args, args[1:], fillvalue=""):
        given, equals, value = word.partition("=")
        if given == option:
            return value if equals else None if following.startswith("-") else following
    return None


def collect(
    ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    """Return repeated --param options as one dict; raise BadParameter if a key comes twice."""
    collected: dict[str, Any] = {}
    for key, value in pairs:
        if key in collected:
            raise click.BadParameter(f"{key} is given twice.", ctx=ctx, param=param)
        collected[key] = value
    return collected
