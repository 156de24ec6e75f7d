"""`batchgen config`: the settings in force."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.output import Column

NAME = Column(title="SETTING", value=lambda setting: setting.name)
VALUE = Column(title="VALUE", value=lambda setting: str(setting.value) or '""')
ORIGIN = Column(title="ORIGIN", value=lambda setting: setting.origin)
VARIABLE = Column(title="VARIABLE", value=lambda setting: setting.variable)


@click.group()
def command() -> None:
    """Show the settings in force."""


@command.command(
    cls=Command,
    examples=["batchgen config show --origin", "BATCHGEN_LEASE_TTL=30 batchgen config show --json"],
)
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@output_options
@pass_app
def show(app: App, origin: bool) -> None:
    """Show every setting in force. Passwords and keys are starred out.

    Flags go before environment variables, before .env, before the profile of BATCHGEN_PROFILE,
    before ./batchgen.toml, before the user's config.toml, before defaults. The profile of --profile
    goes before environment variables.
    """
    from batchgen_cli.configuration import show_settings

    given = {"home": app.home, "profile": app.profile}
    flags = {name: value for name, value in given.items() if value}
    app.output.table(
        show_settings(app.settings, flags=flags),
        (NAME, VALUE, ORIGIN, VARIABLE) if origin else (NAME, VALUE),
        quiet=lambda setting: setting.name,
        json=lambda setting: {
            "name": setting.name,
            "value": setting.value,
            "origin": setting.origin,
            "variable": setting.variable,
            "description": setting.description,
        },
        empty="",
    )
