"""Check the files that settings come from, and find the line of a setting in them."""

from __future__ import annotations

import io
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from batchgen.errors import InvalidParameter
from batchgen.settings import PROJECT_FILE, USER_FILE, Settings

TOML_FILES = (PROJECT_FILE, USER_FILE)
NAME, PREFIX = "BATCHGEN", "BATCHGEN_"


def check_files() -> None:
    """Raise InvalidParameter, with file and line, if a file cannot be parsed.

    Other programs may use the .env too, so only its lines about batchgen settings must be valid.
    """
    for path in TOML_FILES:
        text = _text(path)
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            last = f"at the end, line {text.count(chr(10)) + 1}"
            reason = str(error).replace("at end of document", last)
            raise InvalidParameter(f"The file {path} is no TOML: {reason}.") from None
    for binding in _statements():
        if binding.error and NAME in binding.original.string.upper():
            place = f"{_dotenv()}, line {_line_of(binding)}"
            raise InvalidParameter(
                f"The file {place}, cannot be read as NAME=VALUE: a quote that does not end, or "
                "a name with a space."
            )


def place_of(name: str) -> str:
    """Return the place of a dotted setting's current value: a variable, or file and line."""
    variable = PREFIX + name.upper().replace(".", "__")
    if variable in map(str.upper, os.environ):
        return f"the variable {variable}"
    found = [one for one in _statements() if (one.key or "").upper() == variable]
    if found:
        return f"{_dotenv()}, line {_line_of(found[-1])}"
    for path in TOML_FILES:
        if (line := _line_in_toml(path, name)) is not None:
            return f"{path}, line {line}"
    return "an option or an argument of the call"


def _statements() -> Iterator[Binding]:
    yield from parse_stream(io.StringIO(_text(_dotenv())))


def _line_of(binding: Binding) -> int:
    text = binding.original.string  # includes the empty lines before it
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _line_in_toml(path: Path, name: str) -> int | None:
    """Return the line of the setting: below its table, or with its full dotted name."""
    *table, last = name.split(".")
    inside: list[str] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if header := re.match(r"\s*\[([\w.\s]+)\]", line):
            inside = header.group(1).replace(" ", "").split(".")
        elif key := re.match(r"\s*([\w.]+)\s*=", line):
            found = [*inside, *key.group(1).split(".")]
            if found in ([*table, last], table):  # `table`: an inline table that holds the setting
                return number
    return None


def _dotenv() -> Path:
    return Path(str(Settings.model_config["env_file"]))


def _text(path: Path) -> str:
    """Return the file's text, '' if there is no file; raise InvalidParameter."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidParameter(f"The file {path} is not UTF-8, from line {line} on.") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidParameter(f"The file {path} cannot be read: {reason}.") from None
