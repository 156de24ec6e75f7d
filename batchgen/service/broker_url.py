"""Parse the broker URL as kombu does, with which Celery connects."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchgen.errors import InvalidParameter

if TYPE_CHECKING:
    from kombu.utils.url import urlparts

SCHEMES = frozenset({"redis", "rediss", "redis+socket", "unix", "memory"})
LONGEST_SOCKET = 107  # bytes of a path, the limit of the kernel
SOCKETS = frozenset({"redis+socket", "unix", "memory"})  # their traffic stays on this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """One broker that Celery may connect to."""

    # empty for a socket
    host: str
    has_password: bool
    has_tls: bool
    # the server must have a valid certificate for its name
    is_verified: bool


def broker_addresses(url: str) -> Iterator[BrokerAddress]:
    """Yield every broker of the URL; if one fails, Celery tries the next.

    Raises InvalidParameter, without the URL, if one is neither Redis nor Valkey: Celery would take
    it for RabbitMQ.
    """
    for one in celery_url(url).split(";"):
        yield _address(one)


def celery_url(url: str) -> str:
    """Return the URL as Celery needs it; raise InvalidParameter.

    A socket becomes redis+socket://, and certificates are checked, which kombu does not do by
    default.
    """
    return ";".join(_for_celery(one) for one in url.split(";"))


def client_url(url: str) -> str:
    """Return a URL as the Redis client needs it: a socket is unix://."""
    scheme, separator, rest = url.partition("://")
    return f"unix{separator}{rest}" if scheme.lower() == "redis+socket" else url


def parse_broker_url(url: str) -> tuple[str, urlparts]:
    """Return the scheme and the parts of one URL; raise InvalidParameter."""
    from kombu.utils.url import url_to_parts  # imported late, because `run` does not need kombu

    try:
        parts, split = url_to_parts(url), urlsplit(url)
    except ValueError:
        raise unusable() from None
    scheme = parts.scheme.lower()
    # An @ after the host means that the password holds a / or a #.
    misread = split.netloc and "@" in split.path + split.fragment
    if scheme not in SCHEMES or "://" not in url or misread:
        raise unusable()
    return scheme, parts


def _for_celery(url: str) -> str:
    scheme, parts = parse_broker_url(url)
    rest = url.partition("://")[2]
    if scheme == "unix":
        scheme = "redis+socket"
    if scheme == "rediss" and "ssl_cert_reqs" not in parts.query:
        rest += f"{'&' if '?' in rest else '?'}ssl_cert_reqs=required"
    return f"{scheme}://{rest}"


def _address(url: str) -> BrokerAddress:
    scheme = url.partition("://")[0]
    if scheme in SOCKETS:
        _check_socket(parse_broker_url(url)[1].path or "")
        return BrokerAddress(host="", has_password=False, has_tls=False, is_verified=False)
    connection = _connection(url)
    tls: Any = connection.ssl
    is_tls = isinstance(tls, dict)
    return BrokerAddress(
        host=connection.hostname or "",
        has_password=bool(connection.password),
        has_tls=is_tls,
        is_verified=is_tls
        and tls.get("ssl_cert_reqs") is ssl.CERT_REQUIRED
        and tls.get("ssl_check_hostname", True),
    )


def _check_socket(path: str) -> None:
    length = len(os.fsencode(f"/{path}"))
    if length > LONGEST_SOCKET:
        raise InvalidParameter(
            f"The path of the broker's socket, /{path}, is {length} bytes long; "
            f"{LONGEST_SOCKET} are possible. Put the socket into a folder with a shorter path.",
            param="broker_url",
        )


def _connection(url: str) -> Any:
    from kombu import Connection

    try:
        # `memory`, because kombu caches the class of redis, and the first must be batchgen's own
        return Connection(url, transport="memory")
    except (ValueError, TypeError, KeyError):  # a bad port, query or value in the query
        raise unusable() from None


def unusable() -> InvalidParameter:
    """Return the error for a broker URL; the message never quotes the URL."""
    return InvalidParameter(
        "The broker URL cannot be used. Write rediss://:password@host:6379/0 or "
        "redis+socket:///path/to/socket; percent-encode special characters (/ is %2F), and leave "
        "host and password out of the query.",
        param="broker_url",
    )
