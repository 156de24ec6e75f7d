"""The sender: claims due deliveries, sends them side by side, records what came of each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from batchgen.database.database import Database
from batchgen.failpoints import reach
from batchgen.settings import Settings
from batchgen.webhooks.deliveries import Claim, DeliveryManager
from batchgen.webhooks.destinations import Destinations
from batchgen.webhooks.sending import Failed, Gone, Poster

AT_ONCE: Final = 8  # attempts at a time
EACH: Final = 2  # of them to one receiver, so that a slow one does not hold up the others

#: Called with a claim, a word for what came of it, and the error if there is one.
Report = Callable[[Claim, str, str | None], None]


class Sender:
    """Sends the events of one database. Any number of senders may run at the same time."""

    def __init__(self, database: Database, settings: Settings, *, report: Report) -> None:
        """Prepare to send; raise InvalidParameter if the destinations cannot be read."""
        self._deliveries = DeliveryManager(database)
        self._poster = Poster(Destinations.of(settings))
        self._report = report

    def send_due(self) -> int:
        """Make one attempt at some of the due deliveries, and return at how many."""
        claims = self._deliveries.claim(limit=AT_ONCE, each=EACH)
        if claims:
            reach("webhook.claimed")
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
                list(pool.map(self._attempt, claims))
        return len(claims)

    def sweep(self) -> int:
        """Delete deliveries that ended long ago, and return how many."""
        return self._deliveries.sweep()

    def _attempt(self, claim: Claim) -> None:
        try:
            self._poster.post(claim)
        except Gone:
            self._deliveries.record_gone(claim)
            self._report(claim, "webhook disabled", None)
        except Failed as error:
            again = self._deliveries.record_failure(claim, str(error))
            self._report(claim, "webhook failed" if again else "webhook given up", str(error))
        else:
            reach("webhook.sent")
            self._deliveries.record_success(claim)
            self._report(claim, "webhook delivered", None)
