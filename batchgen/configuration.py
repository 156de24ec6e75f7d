"""Load the settings: arguments of the caller, then environment, then files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from batchgen.errors import InvalidParameter
from batchgen.setting_files import check_files, place_of
from batchgen.settings import Settings
from batchgen.spelling import suggestion


def load_settings(
    *,
    home: Path | None = None,
    engine: Mapping[str, Any] | None = None,
    server: Mapping[str, Any] | None = None,
    insecure: bool = False,
    profile: str | None = None,
) -> Settings:
    """Read the settings. Arguments override environment and files.

    Args:
        home: folder of database, inputs, datasets and models.
        engine: settings of the engine by name; None means not given.
        server: settings of the HTTP server by name, likewise.
        insecure: accept other machines without password or TLS.
        profile: name of the table [profile.NAME] whose settings go before the environment.

    Raises:
        InvalidParameter: an argument, a variable or a file holds a value that cannot be used.
    """
    groups = {"engine": engine or {}, "server": server or {}}
    given = _given(home, groups, insecure, profile)
    check_files()
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise _invalid(error) from None
    except (SettingsError, ValueError) as error:
        raise InvalidParameter(f"The settings cannot be read: {error}.") from None
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


def variable_of(name: str) -> str:
    """Return the environment variable of a dotted setting name."""
    return "BATCHGEN_" + name.upper().replace(".", "__")


def _given(
    home: Path | None,
    groups: Mapping[str, Mapping[str, Any]],
    insecure: bool,
    profile: str | None,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if home is not None:
        values["home"] = home
    if insecure:
        values["insecure"] = True
    if profile is not None:
        values["profile"] = profile
    for group, given in groups.items():
        _refuse_unknown(group, given)
        if asked := {name: value for name, value in given.items() if value is not None}:
            values[group] = asked
    return values


def _refuse_unknown(group: str, given: Mapping[str, Any]) -> None:
    kind = Settings.model_fields[group].annotation
    assert isinstance(kind, type) and issubclass(kind, BaseModel)
    names = kind.model_fields
    for name in given:
        if name not in names:
            raise InvalidParameter(
                f"The {group} has no setting {name!r}.{suggestion(name, names)} "
                f"It has: {', '.join(names)}.",
                param=f"{group}.{name}",
            )


def _invalid(error: ValidationError) -> InvalidParameter:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    reason = first["msg"][:1].lower() + first["msg"][1:]
    value = "that" if name == "api_key" else repr(first["input"])
    return InvalidParameter(
        f"The setting {name} ({variable_of(name)}) cannot be {value}: {reason}. "
        f"It is set by {place_of(name)}.",
        param=name,
    )
