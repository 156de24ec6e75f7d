"""`batchgen models add` and `check`, and the options of `batchgen run` for an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from batchgen.core.dialects import Dialect
from batchgen.errors import InvalidParameter
from batchgen_cli.app import App, pass_local_app
from batchgen_cli.formats import count
from batchgen_cli.group import Command
from batchgen_cli.options import complete_models, output_options

if TYPE_CHECKING:
    from batchgen.service.endpoints import Checked, NewEndpoint

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--served-model",
        metavar="NAME",
        help="The model's name at the endpoint, if it is another one there.",
    ),
    click.option(
        "--dialect",
        type=click.Choice([str(dialect) for dialect in Dialect]),
        help="The server behind it, which decides what parameters it takes [openai].",
    ),
    click.option(
        "--api-key-env", metavar="VAR", help="Environment variable that holds the API key."
    ),
    click.option("--api-key-file", metavar="PATH", help="File that holds the API key."),
    click.option(
        "--max-concurrency", metavar="N", type=int, help="The most requests at once [128]."
    ),
    click.option(
        "--context",
        metavar="TOKENS",
        type=click.IntRange(min=2),
        help="Tokens of prompt and answer together, where the endpoint does not say it.",
    ),
)


def endpoint_options(function: F) -> F:
    """Add --endpoint and what belongs to it; all of it is passed on as `endpoint`."""

    @wraps(function)
    def with_endpoint(*args: Any, endpoint: str | None, **others: Any) -> Any:
        names = ("served_model", "dialect", "api_key_env", "api_key_file")
        said = {name: others.pop(name) for name in (*names, "max_concurrency", "context")}
        given = {name: value for name, value in said.items() if value is not None}
        if endpoint is None and given:
            option = next(iter(given)).replace("_", "-")
            raise InvalidParameter(f"--{option} belongs to --endpoint URL, which is missing.")
        asked = None if endpoint is None else _new(endpoint, given)
        return function(*args, endpoint=asked, **others)

    wrapped: Callable[..., Any] = with_endpoint
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    wrapped = click.option(
        "--endpoint",
        metavar="URL",
        help="Base URL of a server with OpenAI's API, such as http://localhost:8000/v1.",
    )(wrapped)
    return cast("F", wrapped)


def _new(url: str, given: dict[str, Any]) -> NewEndpoint:
    from batchgen.service.endpoints import NewEndpoint

    return NewEndpoint(url=url, **given)


@contextmanager
def registered_for(app: App, model: str, endpoint: NewEndpoint | None) -> Iterator[Path | None]:
    """Yield a folder of models in which only `model` is, at the endpoint; None without one."""
    if endpoint is None:
        yield None
        return
    from dataclasses import replace

    from batchgen.models.registry import Registry
    from batchgen.service.endpoints import add_endpoint

    asked = replace(endpoint, served_model=endpoint.served_model or model)
    with TemporaryDirectory(prefix="batchgen-") as folder:
        models = Path(folder) / "models"
        _, checked = add_endpoint(Registry(models), model, asked, app.settings)
        if checked is None:
            app.output.warn("The endpoint does not answer yet; waiting for it.")
        yield models


@click.command(
    cls=Command,
    examples=[
        "batchgen models add llama --endpoint http://localhost:8000 --dialect vllm",
        "batchgen models add gpt --endpoint https://api.example.com/v1 --served-model gpt-5 "
        "--api-key-env EXAMPLE_KEY",
    ],
)
@click.argument("name", metavar="NAME")
@endpoint_options
@output_options
@pass_local_app
def add(app: App, name: str, endpoint: NewEndpoint | None) -> None:
    """Register a model that another server computes, under NAME.

    The endpoint is asked which model it serves and how long its context is. Its host must be this
    machine, or be named in BATCHGEN_ENDPOINT__HOSTS. The key itself is never stored.
    """
    from batchgen.service.endpoints import add_endpoint

    if endpoint is None:
        raise InvalidParameter("Name the server with --endpoint URL.", param="endpoint")
    record, checked = add_endpoint(app.local.models, name, endpoint, app.settings)
    app.output.record(record.as_dict(), quiet=record.name, human=lambda: record.name)
    if checked is None:
        app.output.warn(f"It does not answer now. Later: batchgen models check {name}")
    else:
        app.output.note(_said(checked))


@click.command(cls=Command, examples=["batchgen models check llama"])
@click.argument("name", metavar="NAME", shell_complete=complete_models)
@output_options
@pass_local_app
def check(app: App, name: str) -> None:
    """Ask an endpoint for its model and for one token; exit 3 if it does not answer."""
    from batchgen.service.endpoints import check_endpoint

    checked = check_endpoint(app.local.models, name, app.settings)
    report = {
        "name": name,
        "server": checked.server,
        "served_model": checked.endpoint.served_model,
        "answers_as": checked.endpoint.answers_as,
        "context": checked.context,
    }
    app.output.record(report, quiet=name, human=lambda: _said(checked))


def _said(checked: Checked) -> str:
    context = f"{count(checked.context)} tokens" if checked.context else "context not told"
    return f"{checked.endpoint.served_model} by {checked.server}, {context}"
