from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx2
import pytest

from batchgen.errors import InvalidParameter
from batchgen.settings import Settings
from batchgen.webhooks.destinations import Destinations, Refused

HOST = "hooks.example.org"


def allowed(hosts: str = HOST, networks: str = "") -> Destinations:
    return Destinations.of(Settings(webhook_hosts=hosts, webhook_networks=networks))


def resolved(
    monkeypatch: pytest.MonkeyPatch, *addresses: str, networks: str = "", scheme: str = "https"
) -> list[str]:
    """The addresses that may be used for a name with these addresses."""

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        assert host == HOST
        family = socket.SOCK_STREAM
        return [(socket.AF_INET, family, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = httpx2.URL(f"{scheme}://{HOST}/")
    return [str(each) for each in asyncio.run(allowed(networks=networks).resolve(url))]


def test_no_host_is_allowed_unless_the_operator_names_it() -> None:
    with pytest.raises(Refused, match="BATCHGEN_WEBHOOK_HOSTS"):
        allowed("").check_url(f"https://{HOST}/")
    with pytest.raises(Refused, match=r"evil\.org is not among"):
        allowed().check_url("https://evil.org/")


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        (HOST, HOST),
        ("a.org, Hooks.Example.Org", HOST.upper()),
        (HOST, f"{HOST}."),
        ("*.example.org", "a.b.example.org"),
        ("93.184.215.14", "93.184.215.14"),
    ],
)
def test_a_name_is_allowed(hosts: str, host: str) -> None:
    assert allowed(hosts).check_url(f"https://{host}:8443/in?a=b")


@pytest.mark.parametrize(
    "host", ["example.org", "evilexample.org", "example.org.evil.org", "xhooks.example.org.evil"]
)
def test_a_pattern_means_names_below_it_only(host: str) -> None:
    with pytest.raises(Refused):
        allowed("*.example.org").check_url(f"https://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://{HOST}/",
        f"//{HOST}/",
        "https:///in",
        f"https://user:secret@{HOST}/",
        f"https://{HOST}@evil.org/",
        f"https://{HOST}/#x",
        f"https://{HOST}:99999/",
        f"https://{HOST}/{'x' * 2000}",
        f"https://{HOST}/\ud800",
        f"https://{HOST}\n/",
        "file:///etc/passwd",
        "",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        allowed().check_url(url)


def test_public_addresses_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolved(monkeypatch, "93.184.215.14", "2606:2800:21f:cb07::1", "93.184.215.14")
    assert found == ["93.184.215.14", "2606:2800:21f:cb07::1"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.5",
        "169.254.169.254",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_a_name_must_not_lead_inside(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with pytest.raises(Refused, match="no public address"):
        resolved(monkeypatch, "93.184.215.14", address)


def test_an_address_in_a_url_is_checked_at_once() -> None:
    with pytest.raises(Refused, match="no public address"):
        allowed("127.0.0.1").check_url("https://127.0.0.1/")
    assert allowed("127.0.0.1", "127.0.0.0/8").check_url("http://127.0.0.1:8000/")


def test_a_network_that_the_operator_names_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolved(monkeypatch, "10.0.0.5", networks="10.0.0.0/8, fd00::/8", scheme="http")
    with pytest.raises(Refused):
        resolved(monkeypatch, "10.0.0.5", "127.0.0.1", networks="10.0.0.0/8")


def test_a_public_address_needs_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="must be https"):
        resolved(monkeypatch, "93.184.215.14", scheme="http")


def test_networks_are_checked() -> None:
    with pytest.raises(InvalidParameter, match=r"10\.0\.0\.1/8"):
        allowed(networks="10.0.0.1/8")
