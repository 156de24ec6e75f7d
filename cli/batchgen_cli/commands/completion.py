"""`batchgen completion`: print the script with which a shell completes jobs and models."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from batchgen_cli.app import App, pass_app
from batchgen_cli.group import Command
from batchgen_cli.options import verbose_option

VARIABLE = "_BATCHGEN_COMPLETE"


@click.command(
    cls=Command,
    examples=[
        'eval "$(batchgen completion bash)"',
        "batchgen completion fish > ~/.config/fish/completions/batchgen.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@verbose_option
@pass_app
def command(app: App, shell: str) -> None:
    """Print the completion script of SHELL."""
    completion = get_completion_class(shell)
    assert completion is not None
    root = click.get_current_context().find_root().command
    app.output.data(completion(root, {}, "batchgen", VARIABLE).source())
