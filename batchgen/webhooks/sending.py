"""One attempt to send an event: a POST to an address that was checked, with limits on everything.

No redirect is followed, no proxy of the environment is used, and no body of an answer is read.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import httpx2

from batchgen import __version__
from batchgen.webhooks.deliveries import Claim
from batchgen.webhooks.destinations import Address, Destinations, Refused
from batchgen.webhooks.signatures import signed_headers

WHOLE: Final = 20.0  # seconds of an attempt, from the look-up of the name to the answer's head
CONNECT: Final = 5.0  # seconds
TRIED: Final = 3  # addresses of a host, at most
GONE: Final = 410


class Failed(Exception):
    """The receiver did not take the event; the message says why."""


class Gone(Exception):
    """The receiver answered that it wants no more events."""


class Poster:
    """Sends claimed events to the destinations that are allowed."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self._tls = httpx2.create_ssl_context(trust_env=False)

    async def post(self, claim: Claim) -> None:
        """Send one event; raise Failed or Gone unless the receiver accepted it."""
        try:
            status = await self._in_time(claim)
        except TimeoutError:
            raise Failed(f"no answer within {WHOLE:.0f} seconds") from None
        except Refused as error:
            raise Failed(str(error)) from None
        # ValueError: a name that the resolver cannot read.
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise Failed(f"{type(error).__name__}: {error}") from None
        if status == GONE:
            raise Gone
        if not 200 <= status < 300:
            raise Failed(f"the receiver answered {status}")

    async def _in_time(self, claim: Claim) -> int:
        async with asyncio.timeout(WHOLE):
            url = self._destinations.check_url(claim.url)
            addresses = await self._destinations.resolve(url)
            return await self._first_reached(claim, url, addresses[:TRIED])

    async def _first_reached(self, claim: Claim, url: httpx2.URL, addresses: list[Address]) -> int:
        timeout = httpx2.Timeout(WHOLE, connect=CONNECT)
        async with httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout) as client:
            for address in addresses[:-1]:
                try:
                    return await self._post(client, claim, url, address)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    continue
            return await self._post(client, claim, url, addresses[-1])

    async def _post(
        self, client: httpx2.AsyncClient, claim: Claim, url: httpx2.URL, address: Address
    ) -> int:
        body = claim.payload.encode()
        headers = {
            "content-type": "application/json",
            # The connection goes to the address; the receiver sees the name.
            "host": url.netloc.decode("ascii"),
            "user-agent": f"batchgen/{__version__}",
            **signed_headers(
                body,
                identity=f"evt_{claim.id}",
                timestamp=int(time.time()),
                secret=claim.secret,
            ),
        }
        request = client.build_request(
            "POST",
            url.copy_with(host=str(address)),
            content=body,
            headers=headers,
            # The certificate must be that of the name.
            extensions={"sni_hostname": url.host},
        )
        answer = await client.send(request, stream=True, follow_redirects=False)
        await answer.aclose()
        return answer.status_code
