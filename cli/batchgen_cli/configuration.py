"""Settings as the command sees them: flags laid over them, where each came from, no secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
    TomlConfigSettingsSource,
)

from batchgen.errors import InvalidParameter
from batchgen.settings import PROJECT_FILE, USER_FILE, Settings
from batchgen_cli.setting_files import check_files, place_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting in force."""

    name: str  # dotted, as in batchgen.toml
    value: Any  # secrets are starred out
    origin: str  # a flag, an environment variable, a file, or `default`
    description: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_of(self.name)


def load_settings(
    *,
    home: Path | None = None,
    engine: Mapping[str, Any] | None = None,
    insecure: bool = False,
) -> Settings:
    """Read the settings, flags first.

    Args:
        home: the value of --home.
        engine: flags of the engine by their setting's name; None means not given.
        insecure: whether --insecure was given.

    Raises:
        InvalidParameter: a flag, a variable or a file holds a value that cannot be used.
    """
    flags: dict[str, Any] = {}
    if home is not None:
        flags["home"] = home
    if insecure:
        flags["insecure"] = True
    given = {name: value for name, value in (engine or {}).items() if value is not None}
    if given:
        flags["engine"] = given
    check_files()
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        raise _invalid(error) from None
    except (SettingsError, ValueError) as error:
        raise InvalidParameter(f"The settings cannot be read: {error}.") from None
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


def show_settings(settings: Settings, *, flags: Mapping[str, Any]) -> list[Setting]:
    """List every setting in force, with the place it came from."""
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


def variable_of(name: str) -> str:
    """Return the environment variable of a dotted setting name."""
    return "BATCHGEN_" + name.upper().replace(".", "__")


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


def _invalid(error: ValidationError) -> InvalidParameter:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return InvalidParameter(
        f"The setting {name} ({variable_of(name)}) cannot be {first['input']!r}: {reason}. "
        f"It is set by {place_of(name)}.",
        param=name,
    )
