"""Ask libpq to which servers a PostgreSQL URL would connect.

The URL alone does not say it: PG… variables, a service file, a password file and defaults add to
it, and `host` in the query overrides the host before the path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.errors import InvalidParameter

if TYPE_CHECKING:
    from sqlalchemy import URL

# libpq resolves all values, then refuses this one before it looks up a name or opens a socket.
NOWHERE = "batchgen-only-asks"
TLS_MODES = frozenset({"verify-ca", "verify-full"})
ROOT_CERTIFICATE = "~/.postgresql/root.crt"  # with it, `require` checks certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One server that libpq may connect to."""

    # a name, an address, or the folder of a socket
    host: str
    has_password: bool
    # the server must have a valid certificate
    has_tls: bool


def destinations(url: URL) -> list[Destination]:
    """Return every server that libpq would try for the URL; raise InvalidParameter."""
    arguments = dict(url.get_dialect()().create_connect_args(url)[1])
    values = _resolved(arguments)[0]
    return [
        _destination(arguments, host=host, hostaddr=hostaddr, port=port)
        for host, hostaddr, port in _servers(values)
    ]


def _servers(values: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    hosts, addresses, ports = (
        values.get(name, "").split(",") for name in ("host", "hostaddr", "port")
    )
    if len(ports) == 1:  # one port for all hosts
        ports *= max(len(hosts), len(addresses))
    return zip_longest(hosts, addresses, ports, fillvalue="")


def _destination(arguments: dict[str, str], *, host: str, hostaddr: str, port: str) -> Destination:
    # one at a time, because the password file has an entry for each host
    one = {**arguments, "host": host, "hostaddr": hostaddr, "port": port}
    values, password = _resolved(one)
    return Destination(
        host=hostaddr or host,
        has_password=bool(password or values.get("sslcert")),
        has_tls=_checks_certificate(values),
    )


def _checks_certificate(values: dict[str, str]) -> bool:
    mode = values.get("sslmode")
    if mode in TLS_MODES:
        return True
    root = values.get("sslrootcert") or ROOT_CERTIFICATE
    return mode == "require" and (root == "system" or Path(root).expanduser().exists())


def _resolved(arguments: dict[str, str]) -> tuple[dict[str, str], bytes]:
    """Return every value libpq would use, and the password."""
    from psycopg import Error  # imported late, because SQLite does not need psycopg
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import PGconn

    try:
        text = make_conninfo(**{**arguments, "target_session_attrs": NOWHERE})
        connection = PGconn.connect_start(text.encode())
    except (Error, TypeError) as error:
        raise _refused(str(error)) from None
    try:
        values = {one.keyword.decode(): one.val.decode() for one in connection.info if one.val}
        if values.get("target_session_attrs") != NOWHERE:
            raise _refused(connection.error_message.decode(errors="replace"))
        return values, connection.password
    finally:
        connection.finish()


def _refused(reason: str) -> InvalidParameter:
    return InvalidParameter(
        f"The database URL cannot be used: {reason.strip().rstrip('.')}. Correct "
        "BATCHGEN_DATABASE_URL and the PG… variables.",
        param="database_url",
    )
