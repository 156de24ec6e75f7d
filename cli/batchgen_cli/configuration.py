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
    PydanticBaseSettingsSource,
    TomlConfigSettingsSource,
)

from batchgen.configuration import variable_of
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
    sources = [("flag", flags), *_sources()]
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

    redacted = {"database_url": redact_database, "broker_url": redact_broker}
    if name in redacted:
        return redacted[name](value)
    return str(value) if isinstance(value, Path) else value


def _sources() -> list[tuple[str, Mapping[str, Any]]]:
    toml_files = [(str(path), path) for path in (PROJECT_FILE, USER_FILE)]
    sources: list[tuple[str, PydanticBaseSettingsSource]] = [
        ("environment", EnvSettingsSource(Settings)),
        (".env", DotEnvSettingsSource(Settings)),
        *((label, TomlConfigSettingsSource(Settings, path)) for label, path in toml_files),
    ]
    return [(label, source()) for label, source in sources]


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
