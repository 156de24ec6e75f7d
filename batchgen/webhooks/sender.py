"""The sender: claims due deliveries, sends them side by side, records what came of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Final

from batchgen.database.database import Database
from batchgen.failpoints import reach
from batchgen.settings import Settings
from batchgen.webhooks.deliveries import Claim, Claims, DeliveryManager
from batchgen.webhooks.destinations import Destinations
from batchgen.webhooks.sending import Failed, Gone, Poster

AT_ONCE: Final = 8  # attempts at a time
EACH: Final = 2  # of them to one receiver, so that a slow one does not hold up the others


class Outcome(StrEnum):
    """The result of an attempt."""

    DELIVERED = "delivered"  #: The receiver has the event.
    FAILED = "failed"  #: It is sent again later.
    GIVEN_UP = "given up"  #: It was the last attempt.
    DISABLED = "disabled"  #: The receiver is gone; so its webhook is disabled.


#: Called with a claim, what came of it, and the error if there is one.
Report = Callable[[Claim, Outcome, str | None], None]


class Sender:
    """Sends the events of one database. Any number of senders may run at the same time.

    An event that is being sent when the sender stops is sent again, when its claim has run out.
    """

    def __init__(self, database: Database, settings: Settings, *, report: Report) -> None:
        """Prepare to send; raise InvalidParameter if the destinations cannot be read."""
        self._deliveries = DeliveryManager(database)
        self._poster = Poster(Destinations.of(settings))
        self._report = report
        self._stopped = False
        # While events are sent: cancels the attempts, from any thread.
        self._cancel: Callable[[], object] = lambda: None

    def send_due(self) -> None:
        """Make one attempt at each due delivery; return when none is due."""
        while not self._stopped and (claims := self._deliveries.claim(limit=AT_ONCE, each=EACH)):
            reach("webhook.claimed")
            asyncio.run(self._send(claims))

    def stop(self) -> None:
        """Give up the attempts in progress, and make no more."""
        self._stopped = True
        with suppress(RuntimeError):  # the last attempt ended meanwhile, and its loop is closed
            self._cancel()

    async def _send(self, claims: Claims) -> None:
        attempts = asyncio.gather(*map(self._attempt, claims), return_exceptions=True)
        loop = asyncio.get_running_loop()
        self._cancel = lambda: loop.call_soon_threadsafe(attempts.cancel)
        try:
            if self._stopped:
                attempts.cancel()
            outcomes = await attempts
        except asyncio.CancelledError:
            return
        finally:
            self._cancel = lambda: None
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _attempt(self, claim: Claim) -> None:
        try:
            await self._poster.post(claim)
        except Gone:
            await asyncio.to_thread(self._record_gone, claim)
        except Failed as error:
            await asyncio.to_thread(self._record_failure, claim, str(error))
        else:
            reach("webhook.sent")
            await asyncio.to_thread(self._record_success, claim)

    def _record_success(self, claim: Claim) -> None:
        self._deliveries.record_success(claim)
        self._report(claim, Outcome.DELIVERED, None)

    def _record_failure(self, claim: Claim, error: str) -> None:
        again = self._deliveries.record_failure(claim, error)
        self._report(claim, Outcome.FAILED if again else Outcome.GIVEN_UP, error)

    def _record_gone(self, claim: Claim) -> None:
        self._deliveries.record_gone(claim)
        self._report(claim, Outcome.DISABLED, None)
