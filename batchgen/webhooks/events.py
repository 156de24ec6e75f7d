"""The events that webhooks receive, and their payloads."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import orjson

from batchgen.errors import InvalidParameter
from batchgen.spelling import suggestion


class Event(StrEnum):
    """An event. The end of a batch is an event of the batch, not of its job."""

    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"
    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_EXPIRED = "job.expired"
    JOB_CANCELLED = "job.cancelled"
    #: Asked for by `batchgen webhooks test`; every webhook receives it.
    TEST = "webhook.test"


#: Events that a webhook may be limited to.
CHOICES = tuple(event for event in Event if event is not Event.TEST)


def check_events(names: Iterable[str]) -> tuple[Event, ...]:
    """Return the events of these names, each once; () means all. Raises InvalidParameter."""
    chosen = []
    for name in names:
        if name not in CHOICES:
            raise InvalidParameter(
                f"There is no event {name!r}.{suggestion(name, CHOICES)} "
                f"Events: {', '.join(CHOICES)}.",
                param="events",
            )
        chosen.append(Event(name))
    return tuple(dict.fromkeys(chosen))


def payload_of(event: Event, *, delivery: str, created_at: float, subject: str) -> str:
    """Return the JSON text of an event, in OpenAI's form; `subject` is the id of what ended."""
    payload: dict[str, Any] = {
        "id": f"evt_{delivery}",
        "object": "event",
        "created_at": int(created_at),
        "type": event,
        "data": {"id": subject},
    }
    return orjson.dumps(payload).decode()
