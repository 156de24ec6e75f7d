"""Profiles: settings under a name, in batchgen.toml and in the user's config.toml.

    [profile.staging]
    url = "https://batchgen.staging.example"
    api_key = "bg_…"

`--profile staging` goes before the environment, BATCHGEN_PROFILE=staging behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from batchgen.errors import InvalidParameter
from batchgen.setting_sources import ProjectFile
from batchgen.spelling import suggestion

TABLE: Final = "profile"

Source = PydanticBaseSettingsSource


def ordered_sources(
    settings_cls: type[BaseSettings],
    flags: Source,
    variables: Sequence[Source],
    *,
    project_file: Path,
    user_file: Path,
) -> tuple[Source, ...]:
    """Return the sources in order, with the tables of the chosen profile among them.

    Raises InvalidParameter if no file has the profile, or if a key of the user's would go to a
    server that a file of the working folder names.
    """
    files = [ProjectFile(settings_cls, path) for path in (project_file, user_file)]
    by_flag = flags().get(TABLE)
    name = str(by_flag or next((one for each in variables if (one := each().get(TABLE))), ""))
    # an empty variable is refused by its own check
    tables = _tables(settings_cls, files, name) if name.strip() else []
    sources = (
        (flags, *tables, *variables, *files) if by_flag else (flags, *variables, *tables, *files)
    )
    dotenv = variables[1:2]
    _check_key(sources, folder=(*dotenv, *tables[:1], files[0]), project_file=project_file)
    return sources


def profile_in(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the settings of a profile in the values of a file; {} if the file has none."""
    tables = values.get(TABLE)
    table = tables.get(name) if isinstance(tables, Mapping) else None
    return table if isinstance(table, Mapping) else {}


def _tables(
    settings_cls: type[BaseSettings], files: Iterable[ProjectFile], name: str
) -> list[Source]:
    known = {one for file in files for one in file.profiles}
    if name not in known:
        hint = suggestion(name, known) or " Profiles are the tables [profile.NAME] of these files."
        raise InvalidParameter(
            f"There is no profile {name!r} in {' or '.join(str(file.path) for file in files)}."
            f"{hint}",
            param=TABLE,
        )
    return [
        InitSettingsSource(settings_cls, dict(file.profiles.get(name, {})), None) for file in files
    ]


def _check_key(sources: Iterable[Source], *, folder: Sequence[Source], project_file: Path) -> None:
    """Raise InvalidParameter if only the working folder's files name the server of a user's key.

    A folder may come from anybody, and a key is sent to the server that is named beside it.
    """
    url, key = (_first_with(sources, name) for name in ("url", "api_key"))
    if key is not None and url in folder and key not in folder:
        raise InvalidParameter(
            f"A file of this folder (.env or {project_file}) names the server, but the API key "
            "comes from elsewhere, and a key is sent only to the server that is set beside it. "
            "Set BATCHGEN_URL too, or put both into one file.",
            param="url",
        )


def _first_with(sources: Iterable[Source], name: str) -> Source | None:
    return next((source for source in sources if source().get(name)), None)
