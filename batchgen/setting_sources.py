"""Sources of settings that refuse misspelt names and empty values.

BATCHGEN_LEESE_TTL=30     spelled nearly like a known variable          an error
BATCHGEN_SOMETHING=1      like no setting: it is of another program     ignored
BATCHGEN_HOME=            probably from a shell variable that is unset  an error
leese_ttl = 30            unknown name in batchgen's own file           an error
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    TomlConfigSettingsSource,
)

from batchgen.errors import InvalidParameter
from batchgen.failpoints import VARIABLE as FAILPOINT
from batchgen.spelling import Spelling, suggestion

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PREFIX: Final = "BATCHGEN_"
#: Variables of batchgen that are not settings.
OTHER_VARIABLES: Final = frozenset({FAILPOINT, f"{PREFIX}DEBUG", f"{PREFIX}MODEL"})


class Variables(PydanticBaseSettingsSource):
    """Checks the names and values of variables, in the environment or in .env. Sets nothing."""

    def __init__(
        self, settings_cls: type[BaseSettings], variables: Mapping[str, str | None], where: str
    ) -> None:
        super().__init__(settings_cls)
        self._variables = variables
        self._where = where

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return no value."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return no values; raise InvalidParameter for a misspelt or empty variable."""
        settings = set(_variables_of(self.settings_cls, PREFIX))
        spelling = Spelling({name.removeprefix(PREFIX) for name in settings | OTHER_VARIABLES})
        for given, value in self._variables.items():
            name = given.upper()
            if name in settings:
                _refuse_empty(name, value, self._where, "unset it, or give it a value")
            elif name.startswith(PREFIX) and (near := spelling.meant(name.removeprefix(PREFIX))):
                raise InvalidParameter(
                    f"There is no setting {name} ({self._where}). Did you mean {PREFIX}{near}?",
                    param=name,
                )
        return {}


class ProjectFile(TomlConfigSettingsSource):
    """Reads a TOML file in which every name must be a setting, and every profile hold settings."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path) -> None:
        super().__init__(settings_cls, path)
        self.path = path

    def __call__(self) -> dict[str, Any]:
        """Return the file's values; raise InvalidParameter for a name that is not a setting."""
        values = super().__call__()
        values.pop("profile", None)
        self._check(values, self.settings_cls, "")
        for name, table in self.profiles.items():
            self._check(table, self.settings_cls, f"profile.{name}.")
        return values

    @property
    def profiles(self) -> dict[str, Mapping[str, Any]]:
        """The tables [profile.NAME] of the file; raise InvalidParameter if they are no tables."""
        tables = self.toml_data.get("profile", {})
        if not isinstance(tables, Mapping) or not all(map(_is_table, tables.values())):
            raise InvalidParameter(
                f"'profile' in {self.path} is no table. Write [profile.NAME] above the settings of "
                "a profile, and choose one with --profile NAME or BATCHGEN_PROFILE.",
                param="profile",
            )
        return dict(tables)

    def _check(self, values: Mapping[str, Any], model: type[BaseModel], prefix: str) -> None:
        for name, value in values.items():
            field = model.model_fields.get(name)
            if field is None:
                hint = suggestion(name, model.model_fields) or " See `batchgen config show`."
                raise InvalidParameter(
                    f"{self.path} has no setting '{prefix}{name}' to set.{hint}",
                    param=f"{prefix}{name}",
                )
            if (nested := _model_of(field)) and isinstance(value, Mapping):
                self._check(value, nested, f"{prefix}{name}.")
            else:
                _refuse_empty(
                    f"{prefix}{name}", value, str(self.path), "remove it, or give it a value"
                )


def checked_environment(
    settings_cls: type[BaseSettings], dotenv: PydanticBaseSettingsSource
) -> tuple[Variables, ...]:
    """Return the checks of the environment and of the .env file."""
    assert isinstance(dotenv, DotEnvSettingsSource)
    return (
        Variables(settings_cls, os.environ, "environment"),
        Variables(settings_cls, dotenv.env_vars, str(dotenv.env_file)),
    )


def _variables_of(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        yield variable
        if nested := _model_of(field):
            yield from _variables_of(nested, f"{variable}__")


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def _refuse_empty(name: str, value: Any, where: str, remedy: str) -> None:
    if isinstance(value, str) and not value.strip():
        raise InvalidParameter(f"{name} is empty ({where}): {remedy}.", param=name)
