"""The `batchgen` command and the table of its subcommands, which are imported when they run."""

from __future__ import annotations

import click

import batchgen
from batchgen_cli.failures import EXIT_CODES
from batchgen_cli.group import RootGroup
from batchgen_cli.options import home_option, profile_option, verbose_option
from batchgen_workers.streams import prepare_streams

SECTIONS = {
    "Jobs": {
        "run": "run",
        "submit": "submit",
        "ls": "ls",
        "status": "status",
        "watch": "watch",
        "wait": "wait",
        "pause": "pause",
        "resume": "resume",
        "cancel": "cancel",
        "rm": "rm",
    },
    "Data": {
        "results": "results",
        "validate": "validate",
        "verify": "verify",
        "fsck": "fsck",
    },
    "Service": {
        "models": "models",
        "up": "up",
        "down": "down",
        "worker": "worker",
        "workers": "workers",
        "coordinator": "coordinator",
        "server": "server",
        "keys": "keys",
        "tenants": "tenants",
        "webhooks": "webhooks",
        "db": "db",
    },
    "Set-up": {
        "doctor": "doctor",
        "config": "config",
        "completion": "completion",
    },
}


@click.group(
    "batchgen",
    cls=RootGroup,
    sections=SECTIONS,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(batchgen.__version__, "--version", "-V", prog_name="batchgen")
@home_option
@profile_option
@verbose_option
def cli() -> None:
    """Run prompt files through a language model: JSON Lines in, a Parquet dataset out."""


def main() -> None:
    """Run the command line and exit with its code."""
    prepare_streams()
    cli(prog_name="batchgen")


if __name__ == "__main__":
    main()
