"""Write docs/cli.md from the help texts of the command itself.

python docs/generate_cli.py            write it
python docs/generate_cli.py --check    exit 1 where it is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from batchgen_cli.main import SECTIONS, cli

TARGET = Path(__file__).with_name("cli.md")
WIDTH = 90  # columns of the help texts

HEAD = """\
# The command line

Written by `python docs/generate_cli.py` from `--help`; a test fails when the two differ.

- Data goes to standard output, progress and remarks to standard error.
- `--json` writes JSON: one document, or for a job that is followed one event a line. `-q` writes
  ids, names or paths only.
- A job is named by its id, by the first or last characters of it (four or more), or by its name.
  A name that several jobs were given means the newest of them, and one line on standard error says
  so; `rm` refuses such a name, `cancel` where more than one of them has not ended.
- A time without a zone is one of this machine's clock; a window needs the zone's name where this
  machine has none that others know. Printed times end with their distance from UTC.
- Ctrl-C while a job is followed detaches; it never cancels.

"""


def render() -> str:
    """Return the page as it should be."""
    root = click.Context(cli, info_name="batchgen", terminal_width=WIDTH, **cli.context_settings)
    parts = [HEAD, f"```text\n{cli.get_help(root)}\n```\n"]
    for title, commands in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        for name in commands:
            command = cli.get_command(root, name)
            assert command is not None
            parts += _entries(root, name, command)
    return "".join(parts)


def _entries(parent: click.Context, name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH)
    yield f"\n### {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            assert child is not None
            yield from _entries(context, below, child)


def main(arguments: list[str]) -> int:
    """Write or check the page; return the exit status."""
    page = render()
    if arguments == ["--check"]:
        if TARGET.exists() and TARGET.read_text(encoding="utf-8") == page:
            return 0
        sys.stderr.write(f"{TARGET} is out of date. Run: python {Path(__file__).name}\n")
        return 1
    TARGET.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
