"""An observer of batches: it looks at all of them each 100 ms, and judges what it has seen."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import httpx2

PERIOD = 0.1  # seconds between two looks
ENDED = {"failed", "completed", "expired", "cancelled"}
#: {state: those that may come next}; a look may miss the states between.
NEXT = {
    "validating": {"in_progress", "failed", "cancelling", "cancelled"},
    "in_progress": {"finalizing", "cancelling", "failed"},
    "finalizing": {"completed", "expired", "failed"},
    "cancelling": {"cancelled", "failed"},
    **{state: set[str]() for state in ENDED},
}
#: In the order in which they may come, where a batch has both.
MOMENTS = (
    *("created_at", "in_progress_at", "cancelling_at", "finalizing_at"),
    *("completed_at", "expired_at", "cancelled_at", "failed_at"),
)


class BatchObserver:
    """Sees every batch as a caller does. A server that does not answer is looked at later."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {key}"}
        #: {id of a batch: what was seen of it, oldest first}
        self.seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look for the block, and once more at its end."""
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def states(self, batch_id: str) -> list[str]:
        """Return the states that a batch was seen in, without repetitions."""
        seen = [look["status"] for look in self.seen[batch_id]]
        return [state for at, state in enumerate(seen) if at == 0 or seen[at - 1] != state]

    def judge(self) -> None:
        """Fail if any batch was seen to do what a batch must not do."""
        assert self.seen, "it saw no batch"
        for looks in self.seen.values():
            for before, after in pairwise(looks):
                _judge_step(before, after)
            _judge_moments(looks[-1])
            _judge_counts(looks[-1])

    def _watch(self) -> None:
        with httpx2.Client(headers=self._headers, timeout=10.0) as client:
            while not self._over.wait(PERIOD):
                self._look(client)
            self._look(client)

    def _look(self, client: httpx2.Client) -> None:
        try:
            answer = client.get(self._url)
        except httpx2.TransportError:
            return  # it was killed, or it is not there yet
        if answer.status_code == 200:
            for batch in answer.json()["data"]:
                self.seen[batch["id"]].append(batch)


def _reachable(state: str) -> set[str]:
    found = {state}
    for following in NEXT[state]:
        found |= _reachable(following)
    return found


def _judge_step(before: dict[str, Any], after: dict[str, Any]) -> None:
    shown = (before, after)
    assert after["status"] in _reachable(before["status"]), shown
    if before["status"] in ENDED:
        assert after == before, shown
    for moment in MOMENTS:
        assert before[moment] is None or after[moment] == before[moment], shown
    counts = before["request_counts"], after["request_counts"]
    assert counts[0]["total"] in (0, counts[1]["total"]), shown
    for count in ("completed", "failed"):
        assert counts[0][count] <= counts[1][count], shown


def _judge_moments(batch: dict[str, Any]) -> None:
    moments = [batch[moment] for moment in MOMENTS if batch[moment] is not None]
    assert moments == sorted(moments), batch
    if batch["status"] in ENDED:
        assert batch[f"{batch['status']}_at"] is not None, batch


def _judge_counts(batch: dict[str, Any]) -> None:
    counts = batch["request_counts"]
    assert counts["completed"] + counts["failed"] <= counts["total"], batch
    if batch["status"] in ENDED and batch["in_progress_at"] is not None:
        assert counts["completed"] + counts["failed"] == counts["total"], batch
