"""Refuse connections that others could read or forge: to database and broker, and to the server.

A socket or the loopback of this machine is safe. Any other server needs a password and TLS, unless
the operator says that the network is private (`insecure`).
"""

from __future__ import annotations

from ipaddress import ip_address

from batchgen.database.database_url import parse_database_url
from batchgen.errors import InvalidParameter
from batchgen.service.broker_url import BrokerAddress, broker_addresses
from batchgen.service.libpq import Destination, destinations
from batchgen.settings import Settings


def check_exposure(settings: Settings) -> None:
    """Raise InvalidParameter unless both servers are on this machine or protected."""
    check_database(settings)
    check_broker(settings)


def check_database(settings: Settings) -> None:
    """Raise InvalidParameter if a remote PostgreSQL lacks password or TLS.

    It is also raised if libpq would refuse the URL. A URL that cannot be parsed is not checked
    here, because opening it raises a better error.
    """
    if not settings.database_url:
        return
    try:
        url = parse_database_url(settings.database_url)
    except InvalidParameter:
        return
    if url.get_backend_name() != "postgresql":
        return
    for server in destinations(url):
        if settings.insecure or not _is_remote(server):
            continue
        lacks = [] if server.has_password else ["no password"]
        if not server.has_tls:
            lacks.append("no TLS that checks the server (sslmode=verify-full)")
        example = "postgresql://user:password@host/name?sslmode=verify-full"
        _refuse("database", server.host, lacks, example)


def check_broker(settings: Settings) -> None:
    """Raise InvalidParameter if a remote broker lacks password or TLS, or the URL is invalid."""
    if not settings.broker_url:
        return
    for broker in broker_addresses(settings.broker_url):
        if settings.insecure or not _is_remote(broker):
            continue
        lacks = [] if broker.has_password else ["no password"]
        if not broker.has_tls:
            lacks.append("no TLS (rediss://)")
        elif not broker.is_verified:
            lacks.append("TLS that does not check the server (ssl_cert_reqs, ssl_check_hostname)")
        _refuse("broker", broker.host, lacks, "rediss://:password@host:6379/0")


def check_server(settings: Settings) -> None:
    """Raise InvalidParameter if the HTTP server would send keys over a network without TLS."""
    server = settings.server
    if bool(server.tls_cert) != bool(server.tls_key):
        raise InvalidParameter(
            "TLS needs both files: server.tls_cert and server.tls_key.", param="server.tls_cert"
        )
    if settings.insecure or server.tls_cert or _is_local(server.host):
        return
    raise InvalidParameter(
        f"The server would listen on {server.host} without TLS, and everybody on the network could "
        "read keys and prompts. Give it a certificate (BATCHGEN_SERVER__TLS_CERT and "
        "BATCHGEN_SERVER__TLS_KEY), keep it on 127.0.0.1 behind a proxy that has TLS, or set "
        "BATCHGEN_INSECURE=1 (--insecure) if the network is private.",
        param="server.host",
    )


def _refuse(what: str, host: str, lacks: list[str], example: str) -> None:
    if not lacks:
        return
    name = f"{what}_url"
    raise InvalidParameter(
        f"The {what} at {host} is on another machine, and BATCHGEN_{name.upper()} has "
        f"{' and '.join(lacks)}. Write {example}, or set BATCHGEN_INSECURE=1 (--insecure) if "
        "the network between is private.",
        param=name,
    )


def _is_remote(server: Destination | BrokerAddress) -> bool:
    return bool(server.host) and not _is_local(server.host)


def _is_local(host: str) -> bool:
    if host.startswith(("/", "@")):  # a unix socket; @ is the abstract namespace
        return True
    name = host.strip("[] ")
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
