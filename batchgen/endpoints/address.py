"""The addresses that an endpoint may have.

Prompts and a key go to an endpoint. So its host is the loopback or one that the operator names
(`endpoint.hosts`), and beyond the loopback it is reached by TLS.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from batchgen.errors import EndpointNotAllowed, InvalidParameter
from batchgen.settings import Settings

API = "/v1"
# Parsers disagree about other characters, and what is checked must be what is asked.
_PLAIN = re.compile(r"https?://[A-Za-z0-9._~:\[\]/%?#@=&+-]+", re.IGNORECASE)


def normal_url(text: str) -> str:
    """Return the base URL of an endpoint, with /v1 if it has no path; raise InvalidParameter."""
    url = _parsed(text)
    if "@" in url.netloc or url.query or url.fragment:
        raise InvalidParameter(
            "The URL of an endpoint has neither a password nor a query: name the key with "
            "--api-key-env or --api-key-file.",
            param="endpoint",
        )
    return f"{url.scheme}://{url.netloc.lower()}{url.path.rstrip('/') or API}"


def check_address(url: str, settings: Settings) -> None:
    """Raise EndpointNotAllowed unless an endpoint of this URL may be asked."""
    parsed = _parsed(url)
    host = parsed.hostname or ""
    if is_loopback(host):
        return
    if host not in allowed_hosts(settings):
        raise EndpointNotAllowed(
            f"The endpoint's host {host} is not among those that this installation may ask. Name "
            "it in BATCHGEN_ENDPOINT__HOSTS if prompts may go there."
        )
    if parsed.scheme != "https" and not settings.insecure:
        raise EndpointNotAllowed(
            f"The endpoint at {host} is on another machine and has no TLS. Write https://, or set "
            "BATCHGEN_INSECURE=1 if the network between is private."
        )


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Return the hosts that the operator names."""
    return frozenset(name.strip().lower() for name in settings.endpoint.hosts.split(",")) - {""}


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _parsed(text: str) -> SplitResult:
    try:
        url = urlsplit(text if _PLAIN.fullmatch(text) else "")
        named = bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:  # a port that is no number, brackets that hold no address
        named = False
    if not named:
        raise InvalidParameter(
            f"{text!r} is not the URL of an endpoint: http://HOST:PORT or https://HOST/v1.",
            param="endpoint",
        )
    return url
