"""Check the arguments of `batchgen.run`. Each function raises InvalidParameter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchgen.configuration import load_settings
from batchgen.errors import InvalidParameter
from batchgen.inputs.survey import OnInvalid
from batchgen.library.json_text import as_json
from batchgen.settings import Settings


def parameters_of(given: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return decoding parameters as JSON values, with the columns as one more parameter."""
    names = [columns] if isinstance(columns, str) else columns
    asked = {**given, "columns": sorted(set(names))} if names else dict(given)
    parameters: dict[str, Any] = {}
    for name, value in asked.items():
        try:
            parameters[name] = as_json(value)
        except TypeError as error:
            message = f"The parameter {name!r} cannot be written as JSON: {error}."
            raise InvalidParameter(message, param=name) from None
    return parameters


def on_invalid_of(on_invalid: str) -> OnInvalid:
    """Return the choice for prompts that cannot be used."""
    try:
        return OnInvalid(on_invalid)
    except ValueError:
        ways = " or ".join(repr(str(way)) for way in OnInvalid)
        message = f"on_invalid must be {ways}, not {on_invalid!r}."
        raise InvalidParameter(message, param="on_invalid") from None


def settings_of(
    settings: Settings | None,
    *,
    home: str | os.PathLike[str] | None,
    engine: Mapping[str, Any] | None,
) -> Settings:
    """Return `settings`, or else the loaded settings with `home` and `engine` applied."""
    if settings is None:
        return load_settings(home=None if home is None else Path(home), engine=engine)
    if home is not None or engine is not None:
        message = "Give either settings, or home and engine: settings hold both."
        raise InvalidParameter(message, param="settings")
    return settings
