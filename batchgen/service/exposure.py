"""Whether what goes to the database and the broker could be read or forged on the way.

On this machine, by a socket or the loopback, nobody stands between. Anywhere else a server needs a
password and TLS, unless the operator says that the network is their own (`insecure`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from batchgen.errors import InvalidParameter
from batchgen.settings import Settings

TLS_MODES = frozenset({"require", "verify-ca", "verify-full"})
BROKERS = frozenset({"redis", "rediss", "redis+socket", "unix", "memory"})


def check_exposure(settings: Settings) -> None:
    """Raise InvalidParameter unless both servers are on this machine or protected."""
    check_database(settings)
    check_broker(settings)


def check_database(settings: Settings) -> None:
    """Raise InvalidParameter where a remote PostgreSQL lacks password or TLS."""
    if settings.insecure:
        return
    url = _parsed(settings.database_url)
    if url is None or not url.drivername.startswith("postgres"):
        return
    values = _as_libpq_takes_them(url)
    remote = _first_remote(f"{values.get('host', '')},{values.get('hostaddr', '')}".split(","))
    if remote is None:
        return
    lacks = []
    if not any(values.get(key) for key in ("password", "passfile", "sslcert")):
        lacks.append("no password")
    if values.get("sslmode") not in TLS_MODES:
        lacks.append("no TLS (sslmode=verify-full)")
    _refuse("database", remote, lacks, "postgresql://user:password@host/name?sslmode=verify-full")


def check_broker(settings: Settings) -> None:
    """Raise InvalidParameter where a remote broker lacks password or TLS."""
    if settings.insecure or not settings.broker_url:
        return
    for one in settings.broker_url.split(";"):  # Celery takes several, the next where one fails
        scheme, host, password, query = _broker_parts(one)
        remote = _first_remote([host, *query.get("host", []), *query.get("hostname", [])])
        if remote is None:
            continue
        lacks = [] if password or query.get("password") else ["no password"]
        if scheme != "rediss":
            lacks.append("no TLS (rediss://)")
        _refuse("broker", remote, lacks, "rediss://:password@host:6379/0")


def _refuse(what: str, host: str, lacks: list[str], example: str) -> None:
    if not lacks:
        return
    name = f"{what}_url"
    raise InvalidParameter(
        f"The {what} at {host} is on another machine, and BATCHGEN_{name.upper()} has "
        f"{' and '.join(lacks)}. Write {example}, or set BATCHGEN_INSECURE=1 (--insecure) where "
        "nobody else is on the network between.",
        param=name,
    )


def _parsed(url: str) -> URL | None:
    """Return the URL, None where there is none to judge: opening it says what is wrong."""
    try:
        return make_url(url) if url else None
    except (ArgumentError, ValueError):
        return None


def _broker_parts(url: str) -> tuple[str, str, str, dict[str, list[str]]]:
    """Return scheme, host, password and query of a URL; raise InvalidParameter unless a broker's.

    Celery would take another for RabbitMQ's.
    """
    try:
        parts = urlsplit(url)
        found = parts.scheme, parts.hostname or "", parts.password or "", parse_qs(parts.query)
    except ValueError:
        found = "", "", "", {}
    if found[0] not in BROKERS:
        raise InvalidParameter(
            "The broker URL cannot be used. Write rediss://:password@host:6379/0 or "
            "redis+socket:///path/to/socket; percent-encode special characters.",
            param="broker_url",
        )
    return found


def _as_libpq_takes_them(url: URL) -> Mapping[str, str]:
    """Return what a connection will use: the URL over the PG… variables and the service file."""
    from psycopg.pq import Conninfo  # a library of its own, which SQLite has no need of

    defaults = {
        option.keyword.decode(): option.val.decode()
        for option in Conninfo.get_defaults()
        if option.val
    }
    query = {
        key: value if isinstance(value, str) else ",".join(value)
        for key, value in url.query.items()
    }
    given = {"host": url.host, "password": url.password}
    return {**defaults, **query, **{key: value for key, value in given.items() if value}}


def _first_remote(hosts: Iterable[str]) -> str | None:
    """Return the first host that is neither a socket nor this machine by its loopback."""
    return next((host for host in map(str.strip, hosts) if host and not _is_near(host)), None)


def _is_near(host: str) -> bool:
    if host.startswith(("/", "@")):  # a unix socket, the second in the abstract namespace
        return True
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host
    if name.count(":") == 1:  # SQLAlchemy takes host=name:port
        name = name.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
