"""The address of a server and the key for it, checked before anything is sent."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from batchgen.configuration import load_settings
from batchgen.errors import InvalidParameter


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A server, and the key that is sent to it."""

    # without a slash at its end
    url: str
    api_key: str = field(default="", repr=False)


def address_of(
    url: str | None = None,
    *,
    api_key: str | None = None,
    profile: str | None = None,
    insecure: bool = False,
) -> Address:
    """Return the address of a call, or that of the settings where no `url` is given.

    With `url` the key is that of the call or of BATCHGEN_API_KEY: one of the settings files is sent
    only to the server that they name.

    Raises InvalidParameter if no server is named, or if the key would cross a network in the clear.
    """
    if url is not None:
        api_key = os.environ.get("BATCHGEN_API_KEY") if api_key is None else api_key
        if profile is not None:
            raise InvalidParameter("Give either a url or a profile.", param="profile")
    else:
        settings = load_settings(profile=profile, insecure=insecure)
        url, insecure = settings.url, settings.insecure
        api_key = settings.api_key if api_key is None else api_key
    if not url:
        raise InvalidParameter(
            "No server is named. Give its url, or set BATCHGEN_URL or a profile.", param="url"
        )
    return checked_address(url, api_key or "", insecure=insecure)


def checked_address(url: str, api_key: str, *, insecure: bool) -> Address:
    """Return an address; raise InvalidParameter unless it is HTTPS, this machine or `insecure`."""
    parts = _parse(url)
    if parts.scheme == "http" and not insecure and not _is_local(parts.hostname or ""):
        raise InvalidParameter(
            f"The server {parts.hostname} is on another machine, and http:// would send the key "
            "and the prompts in the clear. Write https://, or set BATCHGEN_INSECURE=1 if the "
            "network between is private.",
            param="url",
        )
    # the address of OpenAI's API, as `batchgen up` prints it, is that of the same server
    return Address(url=url.rstrip("/").removesuffix("/v1"), api_key=api_key)


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidParameter(
            "The url of a server is its scheme, host and port, such as "
            "https://batchgen.example:8443; the key goes into BATCHGEN_API_KEY.",
            param="url",
        )
    return parts


def _is_local(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
