"""`batchgen keys`: create, list and revoke the keys of the HTTP server."""

from __future__ import annotations

import click

from batchgen_cli.app import App, pass_local_app
from batchgen_cli.formats import moment
from batchgen_cli.group import Command
from batchgen_cli.options import output_options
from batchgen_cli.output import Column

SCOPES = ["submit", "read", "admin"]

COLUMNS = (
    Column(title="KEY", value=lambda key: key.id),
    Column(title="TENANT", value=lambda key: key.tenant),
    Column(title="NAME", value=lambda key: key.name or "-"),
    Column(title="SCOPES", value=lambda key: " ".join(s for s in SCOPES if s in key.scopes)),
    Column(title="CREATED", value=lambda key: moment(key.created_at)),
    Column(title="REVOKED", value=lambda key: moment(key.revoked_at)),
)


@click.group()
def command() -> None:
    """Create, list and revoke the keys of the HTTP server."""


@command.command(
    cls=Command,
    examples=[
        "batchgen keys create --name laptop",
        "batchgen keys create --tenant research --scope read",
        "export OPENAI_API_KEY=$(batchgen keys create -q)",
    ],
)
@click.option("--tenant", default="local", show_default=True, help="The tenant that owns the key.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=("submit", "read"),
    show_default=True,
    help="What the key may do; may be given several times. `admin` includes the others.",
)
@click.option("--name", help="A name that reminds of its use.")
@output_options
@pass_local_app
def create(app: App, tenant: str, scopes: tuple[str, ...], name: str | None) -> None:
    """Make a key and print it. It is shown this once only: the store keeps a digest."""
    from batchgen.service.access_json import key_json
    from batchgen.tenants.principal import parse_scopes

    new = app.local.access.create_key(tenant, scopes=parse_scopes(scopes), name=name)
    app.output.record(
        {**key_json(new.record), "key": new.key}, quiet=new.key, human=lambda: new.key
    )
    app.output.note(
        f"Keep it now: it is not shown again. Revoke it with: batchgen keys revoke {new.record.id}"
    )


@command.command(cls=Command)
@click.option("--tenant", help="Only the keys of this tenant.")
@output_options
@pass_local_app
def ls(app: App, tenant: str | None) -> None:
    """List keys, oldest first, without their secrets; also those that are revoked."""
    from batchgen.service.access_json import key_json

    access = app.local.access
    if tenant is not None:
        access.tenants.get(tenant)
    app.output.table(
        access.keys.list(tenant=tenant),
        COLUMNS,
        quiet=lambda key: key.id,
        json=key_json,
        empty="No keys. Make one with: batchgen keys create",
    )


@command.command(cls=Command, examples=["batchgen keys revoke 0f3a9c5e7d1b2468"])
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@output_options
@pass_local_app
def revoke(app: App, keys: tuple[str, ...]) -> None:
    """Make keys invalid for ever, from the next request on. KEY is the id that `ls` shows."""
    for key_id in keys:
        app.local.access.keys.revoke(key_id)
        app.output.note(f"Revoked {key_id}")
