"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from batchgen.errors import BatchgenError
from batchgen_cli.app import App, current_app
from batchgen_cli.output import Format
from batchgen_cli.params import KeyValue, Names, collect

F = TypeVar("F", bound=Callable[..., Any])

FILE_HELP = "FILE is a JSON Lines file of prompts; - is standard input."


def verbose_option(function: F) -> F:
    """Add --verbose, which shows tracebacks."""
    return click.option(
        "--verbose",
        "-v",
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Show the traceback of an error.",
    )(function)


def output_options(function: F) -> F:
    """Add --json, --quiet and --verbose."""
    function = verbose_option(function)
    function = click.option(
        "--quiet",
        "-q",
        is_flag=True,
        expose_value=False,
        callback=_format_setter(Format.QUIET),
        help="Write ids, names or paths only, one a line.",
    )(function)
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_format_setter(Format.JSON),
        help="Write JSON.",
    )(function)


def home_option(function: F) -> F:
    """Add --home."""
    return click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        expose_value=False,
        callback=_set_home,
        help="Folder of the database, inputs, datasets and models [BATCHGEN_HOME].",
    )(function)


def profile_option(function: F) -> F:
    """Add --profile."""
    return click.option(
        "--profile",
        metavar="NAME",
        expose_value=False,
        callback=_set_profile,
        help="Take the settings of the table [profile.NAME] of batchgen.toml or config.toml, such "
        "as the address of a server and its key [BATCHGEN_PROFILE].",
    )(function)


def insecure_option(function: F) -> F:
    """Add --insecure."""
    return click.option(
        "--insecure",
        is_flag=True,
        expose_value=False,
        callback=_set_insecure,
        help="Accept a database or broker on another machine without password or TLS, and serve "
        "other machines without TLS [BATCHGEN_INSECURE].",
    )(function)


def job_argument(function: F) -> F:
    """Add JOB: an id, the first characters of an id, or a name, which means its newest job."""
    return click.argument("job", metavar="JOB", shell_complete=_complete_jobs)(function)


def jobs_argument(function: F) -> F:
    """Add JOB…: at least one."""
    return click.argument(
        "jobs", metavar="JOB...", nargs=-1, required=True, shell_complete=_complete_jobs
    )(function)


def model_option(function: F) -> F:
    """Add the required --model NAME."""
    return click.option(
        "--model",
        "-m",
        metavar="NAME",
        required=True,
        shell_complete=complete_models,
        help="Registry name of the model, which answers lines that name another one, too; see "
        "`batchgen models ls`.",
    )(function)


def input_options(function: F) -> F:
    """Add the options for reading the lines of a prompt file."""
    function = click.option(
        "--on-invalid",
        type=click.Choice(["refuse", "row-error"]),
        default="refuse",
        show_default=True,
        help="One bad line refuses the file, or becomes an error row.",
    )(function)
    return param_option(function)


def param_option(function: F) -> F:
    """Add --param KEY=VALUE… and --columns; both are passed on in `params`."""

    @wraps(function)
    def with_columns(
        *args: Any, params: dict[str, Any], columns: tuple[tuple[str, ...], ...], **others: Any
    ) -> Any:
        names = sorted({name for several in columns for name in several})
        return function(*args, params={**params, "columns": names} if names else params, **others)

    option = click.option(
        "--columns",
        type=Names(),
        multiple=True,
        help="Fields of the lines that are data to carry along, even where they are called like "
        "a parameter, or nearly so. May be repeated.",
    )
    return _decoding_option(option(cast("F", with_columns)))


def _decoding_option(function: F) -> F:
    return click.option(
        "--param",
        "-p",
        "params",
        type=KeyValue(),
        multiple=True,
        callback=collect,
        help="Decoding parameter of every row that does not set it: temperature, top_p, top_k, "
        "seed, max_tokens, stop, … KEY=@FILE takes the value from a file. May be repeated.",
    )(function)


def server_options(function: F) -> F:
    """Add --host, --port, --tls-cert and --tls-key of the HTTP server."""
    for option in (
        click.option(
            "--tls-key",
            metavar="FILE",
            callback=_set_server,
            expose_value=False,
            help="PEM file of the certificate's private key.",
        ),
        click.option(
            "--tls-cert",
            metavar="FILE",
            callback=_set_server,
            expose_value=False,
            help="PEM file of the certificate chain; without it, no TLS.",
        ),
        port_option,
        click.option(
            "--host",
            metavar="ADDRESS",
            callback=_set_server,
            expose_value=False,
            help="Address to listen on; beyond 127.0.0.1 it needs TLS, or --insecure.",
        ),
    ):
        function = option(function)
    return function


def port_option(function: F) -> F:
    """Add --port of the HTTP server."""
    return click.option(
        "--port",
        metavar="PORT",
        type=click.IntRange(0, 65535),
        callback=_set_server,
        expose_value=False,
        help="Port of the HTTP server; 0: any free one [BATCHGEN_SERVER__PORT, 8000].",
    )(function)


def engine_options(function: F) -> F:
    """Add the engine's flags; a flag that is not given leaves its setting unchanged."""
    for name, metavar, text in reversed(
        [
            ("device", "DEVICE", "auto, cpu or cuda:N."),
            ("dtype", "DTYPE", "auto, float32, bfloat16 or float16."),
            ("quantize", "TYPE", "none, or int8: eight bits of each weight, on a CPU."),
            ("kv-memory", "SIZE", "KV pool: bytes (K, M, G) or a fraction of the free memory."),
            ("block-size", "TOKENS", "Tokens in one KV block."),
            ("max-batch-tokens", "TOKENS", "Token budget of one engine step."),
            ("max-num-seqs", "N", "Sequences computed in one step at most."),
            (
                "prefix-caching/--no-prefix-caching",
                None,
                "Keep the blocks of prompts and answers for rows that begin alike.",
            ),
            (
                "preemption",
                "HOW",
                "What happens to rows that lose their blocks: auto, swap or recompute.",
            ),
            ("swap-memory", "SIZE", "Host memory for swapped-out rows: bytes or a fraction."),
            ("kernels", "NAME", "Attention kernels: auto, reference, cpu or triton."),
            ("threads", "N", "CPU threads of the engine; 0: OMP_NUM_THREADS or every core."),
        ]
    ):
        function = click.option(
            f"--{name}",
            metavar=metavar,
            default=None,
            help=text,
            callback=_set_engine,
            expose_value=False,
        )(function)
    return function


def complete_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of registered models that begin with `incomplete`."""
    return _matching(lambda app: list(app.service.models.names()), ctx, incomplete)


def _complete_jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    def words(app: App) -> list[str]:
        jobs = app.service.records()
        return [job.public_id for job in jobs] + [job.name for job in jobs if job.name]

    return _matching(words, ctx, incomplete)


def _matching(words: Callable[[App], list[str]], ctx: click.Context, begun: str) -> list[str]:
    app = ctx.find_object(App) or App()
    app.hurried = True
    try:
        return [word for word in words(app) if word.startswith(begun)]
    except BatchgenError:  # the shell would print an error into the line that is being typed
        return []


def _set_verbose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        current_app().verbose = True


def _set_home(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        current_app().home = value


def _set_profile(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        current_app().profile = value


def _set_insecure(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        current_app().insecure = True


def _set_engine(ctx: click.Context, param: click.Parameter, value: str | bool | None) -> None:
    if value is not None:
        assert param.name is not None
        current_app().engine[param.name] = value


def _set_server(ctx: click.Context, param: click.Parameter, value: str | int | None) -> None:
    if value is not None:
        assert param.name is not None
        current_app().listening[param.name] = value


def _format_setter(chosen: Format) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        output = current_app().output
        if not value:
            return
        if output.format not in (Format.HUMAN, chosen):
            raise click.UsageError("--json and --quiet exclude each other.", ctx=ctx)
        output.format = chosen

    return callback
