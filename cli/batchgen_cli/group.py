"""Command groups that import a command when it is run, and turn errors into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from batchgen_cli.app import App
from batchgen_cli.failures import exit_code_of
from batchgen_cli.params import as_param

# {section: {command: module below batchgen_cli.commands}}
Sections = Mapping[str, Mapping[str, str]]


class NonEmptyArguments(click.Command):
    """A command that refuses empty values: they come from shell variables that are not set."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; raise BadParameter that names an empty one."""
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            for param in self.get_params(ctx):
                if _is_empty(given.get(param.name or "")):
                    message = "it is empty. Give it a value, or leave it out."
                    raise click.BadParameter(message, ctx=ctx, param=param)
        return super().parse_args(ctx, args)


def _is_empty(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(each, str) and not each.strip() for each in values)


class Command(NonEmptyArguments):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; for a decoding parameter written as an option, suggest --param."""
        try:
            return super().parse_args(ctx, list(args))
        except click.exceptions.NoSuchOption as error:
            if (hint := as_param(error.option_name, args)) and _takes_params(self):
                raise click.exceptions.NoSuchOption(error.option_name, hint, ctx=ctx) from None
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, one a line."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def _takes_params(command: click.Command) -> bool:
    return any(param.name == "params" for param in command.params)


class LazyGroup(NonEmptyArguments, click.Group):
    """A group that imports the module of a command only when it is needed.

    Each module of `batchgen_cli.commands` has one `command`.
    """

    def __init__(self, *args: Any, sections: Sections | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections or {}
        self.modules = {
            name: module for commands in self.sections.values() for name, module in commands.items()
        }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of their sections."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return the command."""
        if cmd_name not in self.modules:
            return None
        module = import_module(f"batchgen_cli.commands.{self.modules[cmd_name]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; for an unknown name raise NoSuchCommand with similar names."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=self.modules, ctx=ctx
            ) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one block for each section."""
        width = max(len(name) for name in self.modules)
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name.ljust(width), command.get_short_help_str(formatter.width))
                        for name in names
                        if (command := self.get_command(ctx, name))
                    ]
                )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog without wrapping, because it is a table."""
        if self.epilog:
            formatter.write("\n" + self.epilog)


class RootGroup(LazyGroup):
    """The top group: it catches every exception and turns it into an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command line; raise SystemExit with its exit code in standalone mode."""
        app = extra.setdefault("obj", App())
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()  # here, so that a failure gets an exit code
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the process ends here)
            code = exit_code_of(error, app)
        finally:
            app.close()
        code = code if isinstance(code, int) else 0
        if standalone_mode:
            raise SystemExit(code)
        return code
