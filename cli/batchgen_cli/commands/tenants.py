"""`batchgen tenants`: the tenants of the HTTP server, their quotas and their usage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from batchgen_cli.app import App, pass_local_app
from batchgen_cli.formats import count, size
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.output import Column

NONE = "none"
DIGITS = 18  # of a quota

COLUMNS = (
    Column(title="TENANT", value=lambda row: row[0].id),
    Column(title="JOBS", value=lambda row: _of(row[1].jobs, row[0].quotas.max_jobs), right=True),
    Column(
        title="TOKENS", value=lambda row: _of(row[1].tokens, row[0].quotas.max_tokens), right=True
    ),
    Column(
        title="FILES",
        value=lambda row: _of(row[1].bytes, row[0].quotas.max_bytes, size),
        right=True,
    ),
    Column(title="ROWS OF A JOB", value=lambda row: _limit(row[0].quotas.max_rows), right=True),
)
USAGE_COLUMNS = (
    Column(title="TENANT", value=lambda used: used.tenant_id),
    Column(title="KEY", value=lambda used: used.key_id or "-"),
    Column(title="MODEL", value=lambda used: used.model),
    Column(title="JOBS", value=lambda used: count(used.jobs), right=True),
    Column(title="ROWS", value=lambda used: count(used.rows_ok), right=True),
    Column(title="ERRORS", value=lambda used: count(used.rows_err), right=True),
    Column(title="PROMPT TOKENS", value=lambda used: count(used.prompt_tokens), right=True),
    Column(title="CACHED", value=lambda used: count(used.cached_tokens), right=True),
    Column(title="ANSWER TOKENS", value=lambda used: count(used.completion_tokens), right=True),
)


class Limit(click.ParamType[int | None]):
    """A whole number, or `none`."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Return the number, None for `none`."""
        text = str(value)
        if text == NONE:
            return None
        if text.isascii() and text.isdigit() and len(text) <= DIGITS:
            return int(text)
        return self.fail(f"{value!r} is neither a whole number nor {NONE!r}.", param, ctx)


@click.group()
def command() -> None:
    """Add and list tenants, set their quotas, and show what they have used."""


@command.command(cls=Command)
@output_options
@pass_local_app
def ls(app: App) -> None:
    """List tenants with what they have and may have: unfinished jobs, their tokens, files."""
    from batchgen.service.access_json import tenant_json

    tenants = app.local.access.tenants
    app.output.table(
        [(tenant, tenants.use(tenant.id)) for tenant in tenants.list()],
        COLUMNS,
        quiet=lambda row: str(row[0].id),
        json=lambda row: tenant_json(*row),
        empty="No tenants.",
    )


@command.command(cls=Command, examples=["batchgen tenants add research"])
@click.argument("name", metavar="NAME")
@output_options
@pass_local_app
def add(app: App, name: str) -> None:
    """Add a tenant without limits; nothing happens if it exists."""
    _report(app, app.local.access.tenants.add(name).id)
    app.output.note(f"Make a key for it with: batchgen keys create --tenant {name}")


@command.command(
    "set",
    cls=Command,
    examples=["batchgen tenants set research --max-jobs 100 --max-tokens none"],
)
@click.argument("name", metavar="NAME")
@click.option("--max-jobs", type=Limit(), help="Jobs that have not ended.")
@click.option("--max-rows", type=Limit(), help="Rows of one job.")
@click.option("--max-tokens", type=Limit(), help="Expected tokens of jobs that have not ended.")
@click.option("--max-bytes", type=Limit(), help="Bytes of uploaded files that are kept.")
@output_options
@pass_local_app
@click.pass_context
def set_(ctx: click.Context, /, app: App, name: str, **limits: int | None) -> None:
    """Set quotas of a tenant; `none` takes one away. What the tenant has already stays."""
    given = {option: limit for option, limit in limits.items() if _is_given(ctx, option)}
    if not given:
        raise click.UsageError("Give one quota at least, such as --max-jobs 100.", ctx)
    tenants = app.local.access.tenants
    quotas = replace(tenants.get(name).quotas, **given)
    _report(app, tenants.set_quotas(name, quotas).id)


@command.command(cls=Command, examples=["batchgen tenants usage --json"])
@click.argument("name", metavar="[NAME]", required=False)
@output_options
@pass_local_app
def usage(app: App, name: str | None) -> None:
    """Show what ended jobs have used, by tenant, key and model; removed jobs count too."""
    from batchgen.service.access_json import usage_json

    access = app.local.access
    if name is not None:
        access.tenants.get(name)
    app.output.table(
        access.usage.list(tenant=name),
        USAGE_COLUMNS,
        quiet=lambda used: f"{used.tenant_id} {used.key_id or '-'} {used.model}",
        json=usage_json,
        empty="No job has ended yet.",
    )


def _is_given(ctx: click.Context, option: str) -> bool:
    return ctx.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


def _report(app: App, name: str) -> None:
    from batchgen.service.access_json import tenant_json

    tenants = app.local.access.tenants
    tenant, use = tenants.get(name), tenants.use(name)
    app.output.record(tenant_json(tenant, use), quiet=name, human=lambda: name)


def _of(number: int, limit: int | None, show: Any = count) -> str:
    return show(number) if limit is None else f"{show(number)} of {show(limit)}"


def _limit(limit: int | None) -> str:
    return "-" if limit is None else count(limit)
