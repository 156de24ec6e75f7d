"""Settings as the command shows them: with the origin of each, and without secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_settings import (
    DotEnvSettingsSource,
    EnvSettingsSource,
    TomlConfigSettingsSource,
)

from batchgen.configuration import variable_of
from batchgen.setting_profiles import profile_in
from batchgen.settings import PROJECT_FILE, USER_FILE, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting in force."""

    name: str  # dotted, as in batchgen.toml
    value: Any  # secrets are starred out
    origin: str  # a flag, an environment variable, a file, or `default`
    description: str

    @property
    def variable(self) -> str:
        """The environment variable of the setting."""
        return variable_of(self.name)


def show_settings(settings: Settings, *, flags: Mapping[str, Any]) -> list[Setting]:
    """List every setting in force, with its origin."""
    sources = _sources(flags, settings.profile)
    return [
        Setting(
            name=name,
            value=_shown(name, value),
            origin=_origin(name, sources),
            description=description,
        )
        for name, value, description in _walk(settings)
    ]


def _shown(name: str, value: Any) -> Any:
    from batchgen.service.redaction import redact_broker, redact_database  # loads SQLAlchemy

    if name == "api_key":
        return "***" if value else ""
    redacted = {"database_url": redact_database, "broker_url": redact_broker}
    if name in redacted:
        return redacted[name](value)
    return str(value) if isinstance(value, Path) else value


def _sources(flags: Mapping[str, Any], profile: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the sources in the order of `setting_profiles.ordered_sources`, with their names."""
    variables = [
        ("environment", EnvSettingsSource(Settings)()),
        (".env", DotEnvSettingsSource(Settings)()),
    ]
    files = [
        (str(path), TomlConfigSettingsSource(Settings, path)())
        for path in (PROJECT_FILE, USER_FILE)
    ]
    tables = [(f"{path} [profile.{profile}]", profile_in(file, profile)) for path, file in files]
    first, second = (tables, variables) if "profile" in flags else (variables, tables)
    plain = [
        (path, {name: file[name] for name in file if name != "profile"}) for path, file in files
    ]
    return [("flag", flags), *first, *second, *plain]


def _origin(name: str, sources: list[tuple[str, Mapping[str, Any]]]) -> str:
    for label, values in sources:
        if _holds(values, name.split(".")):
            return variable_of(name) if label == "environment" else label
    return "default"


def _holds(values: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _walk(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, field.description or ""
