"""The state of one invocation of the command: its flags, its settings, its service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.errors import BatchgenError, NotAllowed
from batchgen_cli.output import Output

if TYPE_CHECKING:
    from batchgen.service import Service
    from batchgen.settings import Settings
    from batchgen_cli.backend import Backend


@dataclass(kw_only=True)
class App:
    """One run of `batchgen`. It reads the settings and opens the home at first use."""

    output: Output = field(default_factory=Output)
    verbose: bool = False
    # --home; None leaves it to the environment, the files and the default.
    home: Path | None = None
    # --profile; None leaves it to the environment.
    profile: str | None = None
    # --insecure; False leaves it to the environment, the files and the default.
    insecure: bool = False
    # True while a shell completes a word: a server is asked once, and not for long
    hurried: bool = False
    # {setting of the engine: value of its flag}
    engine: dict[str, str | bool] = field(default_factory=dict)
    # {setting of the HTTP server: value of its flag}
    listening: dict[str, str | int] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        """Return the settings in force; raise InvalidParameter for an invalid value."""
        from batchgen.configuration import load_settings

        return load_settings(
            home=self.home,
            engine=self.engine,
            server=self.listening,
            insecure=self.insecure,
            profile=self.profile,
        )

    @property
    def server(self) -> str:
        """The address of the server that has the jobs, '' if they are in the home. --home wins."""
        return "" if self.home else self.settings.url

    @cached_property
    def service(self) -> Backend:
        """Return the operations of the server, or of the home where no server is set."""
        if not self.server:
            return self.local
        from batchgen.client.address import checked_address
        from batchgen.client.remote import Remote

        settings = self.settings
        address = checked_address(settings.url, settings.api_key, insecure=settings.insecure)
        return Remote.at(address, on_wait=self._note_wait, hurried=self.hurried)

    def _note_wait(self, error: BatchgenError, seconds: float) -> None:
        self.output.note(f"Waiting {seconds:.0f} s: {error.message}")

    @cached_property
    def local(self) -> Service:
        """Return the Service of the home; raise NotAllowed where a server is set."""
        from batchgen.service import Service

        self.need_home()
        return Service(self.settings)

    def need_home(self) -> None:
        """Raise NotAllowed where a server is set, for a command that needs the home itself."""
        if self.server:
            command = click.get_current_context().command_path
            raise NotAllowed(
                f"`{command}` works on the home itself, so on the machine of the server only, and "
                f"{self.server} is set as the server. There, unset BATCHGEN_URL, or name the home "
                "with --home."
            )

    def close(self) -> None:
        """Close what was opened."""
        for name in ("service", "local"):
            if name in vars(self):
                getattr(self, name).close()


def current_app() -> App:
    """Return the App of the running command."""
    app = click.get_current_context().find_object(App)
    assert app is not None
    return app


pass_app: Callable[..., Callable[..., None]] = click.make_pass_decorator(App)


def pass_local_app(function: Callable[..., None]) -> Callable[..., None]:
    """Pass the App to a command that works on the home only; refuse it where a server is set."""

    @wraps(function)
    def checked(app: App, *args: object, **kwargs: object) -> None:
        app.need_home()
        function(app, *args, **kwargs)

    return pass_app(checked)
