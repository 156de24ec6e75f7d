"""Named points at which a test can kill, pause or fail the code. By default they do nothing.

BATCHGEN_FAILPOINT="part.committing=kill, storage.synced=raise:ENOSPC@1-3"

name=kill           SIGKILL to this process
name=stop:1         SIGSTOP to this process; once continued, the thread sleeps 1 second more
name=pause:5        the thread sleeps 5 seconds
name=raise:ENOSPC   OSError with this errno
…@2, …@1-3          only the second time, only the first three times; default: every time
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from batchgen.errors import InvalidParameter
from batchgen.spelling import suggestion

VARIABLE = "BATCHGEN_FAILPOINT"

#: All points in the code; a test checks that the code has each.
NAMES = frozenset(
    {
        "batch.accepted",
        "batch.checked",
        "batch.created",
        "batch.creating",
        "checkpoint.registered",
        "checkpoint.registering",
        "dispatch.published",
        "dispatch.taken",
        "final.claimed",
        "final.completed",
        "final.completing",
        "migration.applied",
        "part.committed",
        "part.committing",
        "rm.committed",
        "rm.committing",
        "rm.folder_deleted",
        "rm.input_deleted",
        "row.answered",
        "shard.claimed",
        "shard.fed",
        "shard.releasing",
        "storage.opening",
        "storage.renamed",
        "storage.synced",
        "storage.written",
        "submit.committed",
        "submit.stored",
        "upload.registered",
        "upload.stored",
        "webhook.claimed",
        "webhook.sent",
    }
)


@dataclass(slots=True)
class _Failpoint:
    """The action at one point, and the passes at which it happens."""

    action: Callable[[], None]
    first: int = 1
    last: int = sys.maxsize
    reached: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def act(self) -> None:
        with self.lock:
            self.reached += 1
            due = self.first <= self.reached <= self.last
        if due:
            self.action()


_armed: dict[str, _Failpoint] = {}


def reach(name: str) -> None:
    """Do the action that BATCHGEN_FAILPOINT sets for this point; outside of tests, nothing."""
    if _armed and (failpoint := _armed.get(name)) is not None:
        failpoint.act()


def arm(specification: str) -> None:
    """Replace all failpoints by those of a specification; raise InvalidParameter."""
    parsed = [_parse(one.strip()) for one in specification.split(",") if one.strip()]
    _armed.clear()
    _armed.update(parsed)


def _parse(text: str) -> tuple[str, _Failpoint]:
    name, _, wanted = text.partition("=")
    what, _, when = wanted.partition("@")
    kind, _, argument = what.partition(":")
    if name not in NAMES:
        known = suggestion(name, NAMES) or f" There are: {', '.join(sorted(NAMES))}."
        raise InvalidParameter(f"{VARIABLE} names no point: {name!r}.{known}", param=VARIABLE)
    try:
        first, last = _times(when)
        return name, _Failpoint(_ACTIONS[kind](argument), first, last)
    except (KeyError, ValueError, AttributeError):
        raise InvalidParameter(
            f"{VARIABLE} holds {text!r}. Write name=kill, name=stop, name=pause:SECONDS or "
            "name=raise:ERRNO, with @2 or @1-3 for when; unset it outside of tests.",
            param=VARIABLE,
        ) from None


def _times(when: str) -> tuple[int, int]:
    if not when:
        return 1, sys.maxsize
    first, _, last = when.partition("-")
    return int(first), int(last or first)


def _kill(argument: str) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


def _stop(argument: str) -> Callable[[], None]:
    seconds = float(argument or 0)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(seconds)

    return stop


def _pause(argument: str) -> Callable[[], None]:
    seconds = float(argument)
    return lambda: time.sleep(seconds)


def _raise(argument: str) -> Callable[[], None]:
    number: int = getattr(errno, argument)

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


_ACTIONS: dict[str, Callable[[str], Callable[[], None]]] = {
    "kill": _kill,
    "stop": _stop,
    "pause": _pause,
    "raise": _raise,
}

arm(os.environ.get(VARIABLE, ""))
