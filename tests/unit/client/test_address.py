from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.client.address import address_of
from batchgen.errors import InvalidParameter


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a user file of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("batchgen.settings.USER_FILE", tmp_path / "user.toml")
    return tmp_path


@pytest.mark.parametrize(
    "url",
    [
        "https://batchgen.example",
        "https://batchgen.example:8443/below/",
        "http://localhost:8000",
        "http://127.0.0.1:8000",
        "http://[::1]:8000/",
    ],
)
def test_a_server_that_may_be_sent_a_key(url: str) -> None:
    address = address_of(url, api_key="bg_key")
    assert (address.url, address.api_key) == (url.rstrip("/"), "bg_key")
    assert "bg_key" not in repr(address)


@pytest.mark.parametrize(
    "url", ["http://batchgen.example", "http://localhost.example", "http://10.0.0.1"]
)
def test_a_key_crosses_no_network_in_the_clear(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidParameter, match="in the clear"):
        address_of(url)
    assert address_of(url, insecure=True).url == url
    monkeypatch.setenv("BATCHGEN_URL", url)
    with pytest.raises(InvalidParameter, match="in the clear"):
        address_of()
    monkeypatch.setenv("BATCHGEN_INSECURE", "1")
    assert address_of().url == url


@pytest.mark.parametrize(
    "url",
    [
        "batchgen.example",
        "ftp://batchgen.example",
        "https://",
        "https://me:bg_key@batchgen.example",
        "https://batchgen.example?key=bg_key",
        "https://batchgen.example:port",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidParameter, match="scheme, host and port") as caught:
        address_of(url)
    assert "bg_key" not in caught.value.message


def test_the_address_of_openai_s_api_is_that_of_the_server() -> None:
    assert address_of("http://127.0.0.1:8000/v1/").url == "http://127.0.0.1:8000"


def test_a_url_of_the_call_gets_no_key_of_the_settings_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "user.toml").write_text('url = "https://one"\napi_key = "bg_one"\n')
    assert address_of().api_key == "bg_one"
    assert address_of("https://two").api_key == ""
    monkeypatch.setenv("BATCHGEN_API_KEY", "bg_two")
    assert address_of("https://two").api_key == "bg_two"
    assert address_of("https://two", api_key="bg_three").api_key == "bg_three"


def test_a_profile_names_server_and_key(folder: Path) -> None:
    (folder / "user.toml").write_text('[profile.p]\nurl = "https://one"\napi_key = "bg_one"\n')
    assert address_of(profile="p").url == "https://one"
    with pytest.raises(InvalidParameter, match="either a url or a profile"):
        address_of("https://two", profile="p")


def test_without_a_server_there_is_no_client() -> None:
    with pytest.raises(InvalidParameter, match="BATCHGEN_URL"):
        address_of()
