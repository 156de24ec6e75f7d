"""Parse the database URL as SQLAlchemy does, and hide its secrets in messages."""

from __future__ import annotations

import re
from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from batchgen.errors import InvalidParameter

SECRETS = ("password", "sslpassword")  # keys of the query
# SQLAlchemy ends a password at the first @. If there is a second one, the password held an @.
_BEHIND_PASSWORD = re.compile(r"[^:]*://(?:[^:/]*(?::[^@]*)?@)?([^?]*)")


def parse_database_url(url: str) -> URL:
    """Return the URL with its password in one place; raise InvalidParameter.

    The message never quotes the URL: it may hold a password.
    """
    try:
        parsed = make_url(url)
        backend = "postgresql" if parsed.drivername == "postgres" else parsed.get_backend_name()
    except (ArgumentError, ValueError):
        raise _unusable() from None
    if backend not in ("sqlite", "postgresql"):
        raise InvalidParameter(
            f"The database URL names {backend!r}. batchgen knows sqlite and postgresql.",
            param="database_url",
        )
    if backend == "postgresql":
        return _postgresql(url, parsed)
    if parsed.database in (None, "", ":memory:"):
        raise InvalidParameter(
            "An SQLite database needs a file: sqlite:////path/to/batchgen.db.",
            param="database_url",
        )
    return parsed


def shown_database(url: URL) -> str:
    """Return a name of the database for messages: its file, or its server and name."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    hosts = url.host or url.query.get("host") or "localhost"
    host = hosts if isinstance(hosts, str) else ",".join(hosts)
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{host}{port}/{url.database or ''}"


def secrets_of(url: URL) -> tuple[str, ...]:
    """Return the secrets that a driver's message must not repeat, plain and percent-encoded."""
    query = (url.query.get(name) for name in SECRETS)
    plain = [text for text in (url.password, *query) if isinstance(text, str) and text]
    return (*plain, *(quoted for text in plain if (quoted := quote(text, safe="")) != text))


def _postgresql(url: str, parsed: URL) -> URL:
    found = _BEHIND_PASSWORD.match(url)
    if found is None or "@" in found.group(1):
        raise _unusable()
    password = parsed.query.get("password")
    if isinstance(password, str):  # SQLAlchemy hides the password field, but not the query
        parsed = parsed.difference_update_query(["password"]).set(password=password)
    parsed = parsed.set(drivername="postgresql+psycopg")
    try:
        parsed.get_dialect()().create_connect_args(parsed)
    except (ArgumentError, ValueError):  # such as several hosts with another number of ports
        raise _unusable() from None
    return parsed


def _unusable() -> InvalidParameter:
    return InvalidParameter(
        "The database URL cannot be parsed. Write sqlite:////path/to/batchgen.db or "
        "postgresql://user:password@host/name; percent-encode special characters (@ is %40).",
        param="database_url",
    )
