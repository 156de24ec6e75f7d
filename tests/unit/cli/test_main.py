from __future__ import annotations

import errno
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from batchgen_cli import commands
from batchgen_cli.commands import ls
from batchgen_cli.failures import EXIT_CODES
from batchgen_cli.group import RootGroup
from batchgen_cli.main import SECTIONS, cli
from tests.unit.cli.conftest import Command

HEAVY = ("torch", "transformers", "celery", "sqlalchemy", "pyarrow", "pydantic", "rich")


def walk(group: click.Group, path: str = "") -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((f"{path} {name}".strip(), command))
        if isinstance(command, click.Group):
            found += walk(command, f"{path} {name}".strip())
    return found


def test_help_loads_nothing_heavy() -> None:
    probe = (
        "import sys\n"
        "from batchgen_cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, "--help"], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "submit" in done.stdout


def test_help_lists_every_command_and_exit_code(batchgen: Command) -> None:
    shown = batchgen.ok("--help").stdout
    for section in SECTIONS.values():
        for name in section:
            assert f"\n  {name}" in shown
    assert EXIT_CODES in shown


def test_every_command_is_in_a_section_of_the_help() -> None:
    modules = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    assert modules == {module for section in SECTIONS.values() for module in section.values()}


@pytest.mark.parametrize(("path", "command"), walk(cli))
def test_every_command_has_help_and_verbose(path: str, command: click.Command) -> None:
    assert command.get_short_help_str()
    if not isinstance(command, click.Group):
        options = {option for param in command.params for option in param.opts}
        assert "--verbose" in options, path
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{path} {param.name}"


def test_an_unknown_command_names_the_one_meant(batchgen: Command) -> None:
    result = batchgen("submti")
    assert result.exit_code == 2
    assert "submit" in result.stderr


def test_an_unknown_option_is_a_usage_error(batchgen: Command) -> None:
    result = batchgen("ls", "--sate", "running")
    assert result.exit_code == 2
    assert "--state" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-tokens", "5"], "-p max_tokens=5"),
        (["--max_tokens=5"], "-p max_tokens=5"),
        (["--num-beams", "4", "--name", "x"], "-p num_beams=4"),
        (["--response-format", "json"], "-p response_format=json"),
        (["--ignore-eos", "--name", "x"], "-p ignore_eos=VALUE"),
        (["--seed"], "-p seed=VALUE"),
    ],
)
@pytest.mark.parametrize("command", [["run", "p.jsonl"], ["submit", "p.jsonl"], ["validate", "p"]])
def test_a_parameter_given_as_an_option_is_told_how_it_is_given(
    batchgen: Command, command: list[str], words: list[str], said: str
) -> None:
    result = batchgen(*command, *words)
    assert result.exit_code == 2
    assert f"It is a decoding parameter: {said}" in " ".join(result.stderr.split())
    assert "max-batch-tokens" not in result.stderr


def test_a_parameter_is_none_where_a_command_takes_none(batchgen: Command) -> None:
    result = batchgen("ls", "--seed", "5")
    assert (result.exit_code, "decoding parameter" in result.stderr) == (2, False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(
    batchgen: Command, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/full/parts")

    monkeypatch.setattr(ls.command, "callback", fail)
    result = batchgen("ls")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {os.strerror(number)}: /full/parts. Make room there and give the command again.\n"
    )


def test_the_version_is_the_package_s(batchgen: Command) -> None:
    import batchgen as package

    assert package.__version__ in batchgen.ok("--version").stdout


def test_home_flag_goes_before_the_environment(batchgen: Command, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shown = batchgen.ok("--home", other, "config", "show", "--origin").stdout
    assert str(other) in shown
    assert "flag" in shown


def test_ctrl_c_is_130(batchgen: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ls.command, "callback", interrupt)
    result = batchgen("ls")
    assert result.exit_code == 130
    assert result.stdout == ""


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the flux capacitor\nhas two lines")

    monkeypatch.setattr(ls.command, "callback", fail)


@pytest.mark.usefixtures("broken")
def test_an_unexpected_error_is_one_line_and_a_log(batchgen: Command) -> None:
    result = batchgen("ls")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "RuntimeError: the flux capacitor" in line
    log = Path(line.rpartition("Details: ")[2])
    assert "Traceback" in log.read_text()
    assert str(batchgen.folder) in str(log)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_verbose_shows_the_traceback(batchgen: Command, place: str) -> None:
    if place == "environment":
        batchgen.env["BATCHGEN_DEBUG"] = "1"
    words = {"before": ["-v", "ls"], "after": ["ls", "-v"], "environment": ["ls"]}[place]
    result = batchgen(*words)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_main_returns_the_code_where_it_may_not_exit() -> None:
    assert isinstance(cli, RootGroup)
    assert cli.main(["--version"], standalone_mode=False) == 0


def test_a_closed_pipe_is_no_error() -> None:
    # the reader is gone before the first byte
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m batchgen_cli.main --help | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def valued() -> list[tuple[str, str]]:
    """Return (command, option or argument) of everything that takes a value."""
    return [
        (path, param.opts[0] if isinstance(param, click.Option) else param.make_metavar(context))
        for path, command in [("", cli), *walk(cli)]
        for context in [click.Context(command)]
        for param in command.get_params(context)
        if not (isinstance(param, click.Option) and (param.is_flag or param.count))
    ]


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize(("path", "name"), valued())
def test_a_shell_variable_that_is_not_set_never_becomes_a_value(
    batchgen: Command, path: str, name: str, value: str
) -> None:
    given = [name, value] if name.startswith("-") else [value]
    result = batchgen(*path.split(), *given)
    assert result.exit_code == 2
    assert "it is empty" in result.stderr
    assert name.strip("[]") in result.stderr
    assert not list(batchgen.home.glob("batchgen.db"))


def test_an_empty_variable_names_itself(batchgen: Command) -> None:
    batchgen.env["BATCHGEN_HOME"] = ""
    result = batchgen("ls")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "BATCHGEN_HOME is empty" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("worker", "-m", "tiny"),
        ("coordinator",),
        ("up", "-m", "tiny"),
        ("down",),
        ("db", "upgrade"),
        ("fsck",),
        ("doctor",),
        ("models", "import", "x", "y"),
        ("models", "rm", "tiny"),
    ],
    ids=" ".join,
)
def test_what_needs_the_home_is_refused_where_a_server_is_set(
    batchgen: Command, words: tuple[str, ...]
) -> None:
    batchgen.env["BATCHGEN_URL"] = "https://batchgen.example"
    result = batchgen(*words)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "on the machine of the server only" in result.stderr
    assert f"`batchgen {' '.join(words[: 2 if words[0] in ('db', 'models') else 1])}`" in (
        result.stderr
    )


def test_a_home_that_is_named_goes_before_a_server(batchgen: Command) -> None:
    batchgen.env["BATCHGEN_URL"] = "https://batchgen.example"
    assert batchgen.ok("--home", batchgen.home, "models", "verify", "tiny").stdout == "ok\n"
