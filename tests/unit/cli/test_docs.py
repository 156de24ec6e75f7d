from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from batchgen_cli.app import App
from batchgen_cli.main import cli
from tests.support.repository import ROOT

GENERATOR = ROOT / "docs" / "generate_cli.py"


PAGES = [ROOT / "README.md", ROOT / "docker" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# At the beginning of a line of code, after a prompt or a variable, or behind a pipe.
COMMAND = re.compile(r"^ *(?:\$ )?(?:[A-Z_]+=\S+ )*(?:[^`#]*\| )?(batchgen .*)$", re.MULTILINE)


def commands() -> list[str]:
    """Return every command line of ours in the code of the pages."""
    code = re.compile(r"^```\w*\n(.*?)^```|^((?:    .*\n)+)", re.MULTILINE | re.DOTALL)
    return [
        line
        for page in PAGES
        for fenced, indented in code.findall(page.read_text(encoding="utf-8"))
        for line in COMMAND.findall(_typed(fenced or indented))
    ]


def _typed(code: str) -> str:
    """Leave out what a command prints: where one line has a prompt, the others are that."""
    prompted = re.findall(r"^ *\$ .*$", code, re.MULTILINE)
    return "\n".join(prompted) or code


def test_every_command_of_a_page_is_one_that_the_command_line_takes() -> None:
    found = [line for line in commands() if not line.startswith("batchgen [")]
    assert len(found) > 40
    for line in found:
        words = shlex.split(line.partition(" | ")[0].partition(" && ")[0], comments=True)[1:]
        words = words[: words.index(">")] if ">" in words else words
        command: click.Command = cli
        context = click.Context(cli, obj=App())
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            _, below, words = command.resolve_command(context, words)
            assert below is not None, line
            command = below
        if not isinstance(command, click.Group):
            try:
                command.make_context(command.name, words, parent=context).close()
            except click.UsageError as error:
                pytest.fail(f"{line}: {error.format_message()}")


def test_the_examples_with_xargs_hold_where_there_is_no_job(tmp_path: Path) -> None:
    lines = [line for line in commands() if "xargs" in line]
    assert len(lines) >= 3
    program = f"{shlex.quote(sys.executable)} -P -m batchgen_cli.main"
    script = "\n".join(lines).replace("xargs -r batchgen", f"xargs -r {program}")
    done = subprocess.run(
        ["bash", "-c", f'set -e\nbatchgen() {{ {program} "$@"; }}\n{script}'],
        env={**os.environ, "BATCHGEN_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def generate(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )


def test_the_page_is_what_the_command_says() -> None:
    checked = generate(GENERATOR, "--check")
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The generator, with a page of its own."""
    script = tmp_path / GENERATOR.name
    script.write_bytes(GENERATOR.read_bytes())
    assert generate(script).returncode == 0
    return script


def test_a_stale_page_is_found(copy: Path) -> None:
    page = copy.with_name("cli.md")
    assert generate(copy, "--check").returncode == 0
    page.write_text(page.read_text(encoding="utf-8").replace("--priority", "--urgency"))
    assert generate(copy, "--check").returncode == 1
    page.unlink()
    assert generate(copy, "--check").returncode == 1


def test_every_command_is_on_the_page(copy: Path) -> None:
    page = copy.with_name("cli.md").read_text(encoding="utf-8")
    for command in ("submit", "models import", "db upgrade", "config show", "completion"):
        assert f"### batchgen {command}\n" in page
