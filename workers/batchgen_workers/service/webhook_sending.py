"""The coordinator's sender of webhooks, and what it counts and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchgen.database.database import Database
from batchgen.settings import Settings
from batchgen.telemetry.counters import webhook_attempts
from batchgen.webhooks.deliveries import Claim
from batchgen_workers.logs import get_logger

if TYPE_CHECKING:
    from batchgen.webhooks.sender import Outcome, Sender

log = get_logger(__name__)


def webhook_sender(settings: Settings, database: Database) -> Sender | None:
    """Return what sends webhooks, None if no host may receive them."""
    if not settings.webhook_hosts:
        return None
    from batchgen.webhooks.sender import Sender  # imports httpx2

    return Sender(database, settings, report=note_attempt)


def note_attempt(claim: Claim, outcome: Outcome, error: str | None) -> None:
    """Count and log what came of an attempt to send an event."""
    webhook_attempts.labels(outcome).inc()
    event = f"webhook {outcome}"
    about = {"webhook": claim.webhook_id, "delivery": claim.id, "attempt": claim.attempt}
    if error is None:
        log.info(event, **about)
    else:
        log.warning(event, **about, error=error)
