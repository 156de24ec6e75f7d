"""Show URLs with every possible secret replaced by stars.

The library that connects also parses the URL. A URL that it cannot parse is not shown at all,
because any part of it may be the password.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from batchgen.database.database_url import parse_database_url
from batchgen.errors import InvalidParameter
from batchgen.service.broker_url import parse_broker_url

HIDDEN = "***"
# Keys of a query whose values are not secret. Of other keys only the name is shown.
PLAIN = frozenset(
    [
        "host",
        "hostaddr",
        "port",
        "user",
        "dbname",
        "service",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "passfile",
        "connect_timeout",
        "application_name",
        "target_session_attrs",
        "options",
        "virtual_host",
        "client_name",
        "ssl_cert_reqs",
        "ssl_check_hostname",
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_keyfile",
    ]
)
NAMED = frozenset({"password", "sslpassword", "ssl_password"})


def redact_database(url: str) -> str:
    """Return the database URL without its secrets."""
    if not url:
        return url
    try:
        parsed = parse_database_url(url)
    except InvalidParameter:
        return HIDDEN
    if parsed.get_backend_name() == "sqlite":
        return f"sqlite:///{parsed.database}"
    # parsing has moved a password from the query to the password field
    host = parsed.set(query={}, drivername=url.partition("://")[0])
    return host.render_as_string(hide_password=True) + _query(parsed.query)


def redact_broker(url: str) -> str:
    """Return the broker URL, or several, without their secrets."""
    try:
        return ";".join(_redact_one(one) for one in url.split(";")) if url else url
    except InvalidParameter:
        return HIDDEN


def _redact_one(url: str) -> str:
    from kombu.utils.url import as_url

    scheme, parts = parse_broker_url(url)
    if parts.hostname is None and scheme != "redis":
        return f"{scheme}:///{parts.path or ''}" + _query(parts.query)
    shown = as_url(
        scheme,
        parts.hostname,
        parts.port,
        parts.username,
        parts.password,
        parts.path,
        sanitize=True,
        mask=HIDDEN,
    )
    return shown + _query(parts.query)


def _query(query: Mapping[str, str | Sequence[str]]) -> str:
    shown = "&".join(
        _item(name, value)
        for name, values in sorted(query.items())
        for value in ([values] if isinstance(values, str) else values)
    )
    return f"?{shown}" if shown else ""


def _item(name: str, value: str) -> str:
    if name in PLAIN:
        return f"{name}={quote(value, safe='/:,@')}"
    return f"{name}={HIDDEN}" if name in NAMED else HIDDEN
