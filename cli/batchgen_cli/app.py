"""The state of one invocation of the command: its flags, its settings, its service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen_cli.output import Output

if TYPE_CHECKING:
    from batchgen.service import Service
    from batchgen.settings import Settings


@dataclass(kw_only=True)
class App:
    """One run of `batchgen`. It reads the settings and opens the home at first use."""

    output: Output = field(default_factory=Output)
    verbose: bool = False
    # --home; None leaves it to the environment, the files and the default.
    home: Path | None = None
    # --insecure; False leaves it to the environment, the files and the default.
    insecure: bool = False
    # {setting of the engine: value of its flag}
    engine: dict[str, str | bool] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        """Return the settings in force; raise InvalidParameter for an invalid value."""
        from batchgen.configuration import load_settings

        return load_settings(home=self.home, engine=self.engine, insecure=self.insecure)

    @cached_property
    def service(self) -> Service:
        """Return the Service of this home."""
        from batchgen.service import Service

        return Service(self.settings)

    def close(self) -> None:
        """Close the service if it was opened."""
        if "service" in vars(self):
            self.service.close()


def current_app() -> App:
    """Return the App of the running command."""
    app = click.get_current_context().find_object(App)
    assert app is not None
    return app


pass_app: Callable[..., Callable[..., None]] = click.make_pass_decorator(App)
