from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.endpoints.address import check_address, normal_url
from batchgen.errors import EndpointNotAllowed, InvalidParameter
from batchgen.settings import EndpointSettings, Settings


def settings(hosts: str = "", *, insecure: bool = False) -> Settings:
    endpoint = EndpointSettings(hosts=hosts)
    return Settings(home=Path("/none"), endpoint=endpoint, insecure=insecure)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("https://API.example.com/openai/v1", "https://api.example.com/openai/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_a_url_is_brought_into_one_form(given: str, normal: str) -> None:
    assert normal_url(given) == normal


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://localhost/",
        "http://",
        "http://host:99999/",
        "http://user:password@localhost/v1",
        "http://localhost/v1?key=secret",
        "http://localhost\\@elsewhere/v1",
        "http://local host/",
        "http://localhost/\r\nX: y",
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter):
        normal_url(url)


@pytest.mark.parametrize("url", ["http://localhost/v1", "http://127.0.0.1:1/v1", "http://[::1]/v1"])
def test_the_loopback_is_allowed(url: str) -> None:
    check_address(url, settings())


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "http://169.254.169.254/v1",
        "http://0.0.0.0/v1",
        "http://localhost.example.com/v1",
        "https://2130706433/v1",
    ],
)
def test_every_other_host_must_be_named(url: str) -> None:
    with pytest.raises(EndpointNotAllowed):
        check_address(url, settings("llm.internal"))


def test_a_host_that_is_named_needs_tls_unless_the_network_is_private() -> None:
    named = "llm.internal, API.example.com"
    check_address("https://api.example.com/v1", settings(named))
    check_address("http://llm.internal/v1", settings(named, insecure=True))
    with pytest.raises(EndpointNotAllowed, match="no TLS"):
        check_address("http://llm.internal/v1", settings(named))
