"""Asks rows of an endpoint, as many at once as it takes, on one event loop.

put ─► waiting ─► request ─► verdict ─► ANSWER  deliver
          ▲                        ├──► BUSY    fewer at once ──────────────┐
          ├── put back ◄───────────┼──► AWAY    nothing is sent, but probes ┤
          │                        └──► FAULT   held until the endpoint has │
          │                                     answered something else:    │
          │                                     then another attempt, or    │
          │                                     the row's error             │
          └─────────────────────────────────────────────────────────────────┘

No row is lost: it is in `_rows` from `put` until it is delivered or aborted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from batchgen.core.rows import Generation, RowError
from batchgen.endpoints.connection import Connection
from batchgen.endpoints.server import CHAT
from batchgen.errors import EndpointUnavailable
from batchgen_workers.endpoint.health import Health
from batchgen_workers.endpoint.limit import Limit
from batchgen_workers.endpoint.verdict import Kind, Verdict, failure_of, verdict_of
from batchgen_workers.endpoint.waiting_rows import Row, WaitingRows

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds before another attempt
MOST_RETURNS = 8  # times that a row may be refused as 401, 502 … while others are answered
MOST_REFUSALS = 64  # times that it may find it busy while it answers others
MOST_OUTAGES_ALONE = 3  # times that the endpoint may go away while it has one row only


class Dispatcher:
    """The rows of one engine and their requests. All methods run on the event loop."""

    def __init__(
        self, connection: Connection, health: Health, deliver: Callable[[Generation], None]
    ) -> None:
        self._connection = connection
        self._deliver = deliver
        self.health = health
        self.limit = Limit(health.endpoint.max_concurrency)
        #: Requests that were sent again.
        self.retries = 0
        # {key: row} of all that were put and are not delivered
        self._rows: dict[int, Row] = {}
        self._waiting = WaitingRows()
        # the requests that the endpoint has, by key
        self._running: dict[int, asyncio.Task[None]] = {}
        # Rows that failed, with what was said of them, until the endpoint has answered another one.
        self._held: list[tuple[Row, Verdict]] = []
        self._check: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._path = CHAT
        #: The first error of a task, which ends the process.
        self.failed: Callable[[BaseException], None] = lambda error: None

    async def close(self) -> None:
        """End all requests."""
        tasks = [*self._running.values(), *([self._check] if self._check else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def running(self) -> int:
        """The number of requests that the endpoint has."""
        return len(self._running)

    @property
    def running_keys(self) -> list[int]:
        """The keys of the rows that the endpoint has; called on any thread."""
        return list(self._running)

    def put(self, row: Row) -> None:
        """Take a row."""
        self._rows[row.key] = row
        self._waiting.add(row)
        self.pump()

    def abort(self, keys: Iterable[int]) -> None:
        """Forget rows, and end their requests; ignore unknown keys."""
        unwanted = frozenset(keys)
        self._waiting.discard(unwanted)
        self._held = [held for held in self._held if held[0].key not in unwanted]
        for key in unwanted:
            self._rows.pop(key, None)
            if task := self._running.pop(key, None):
                task.cancel()
        self.pump()

    def pump(self) -> None:
        """Send as many requests as the endpoint takes now."""
        while self._may_send:
            row = self._waiting.next(running=self.running)
            if row is None:
                return
            self._send(row)
        self._look_again()

    @property
    def _may_send(self) -> bool:
        if not self.health.is_open or self.running >= self.limit.allowed:
            return False
        return not any(self._rows[key].is_suspect for key in self._running)

    def check(self) -> None:
        """Ask about the endpoint itself, until it answers; see `Health.ask`."""
        if self._check is None:
            self._check = self._task(self._ask_until_healthy())

    def _look_again(self) -> None:
        """Pump again at the end of a pause."""
        left = self.health.paused_until - time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self.pump)

    def _send(self, row: Row) -> None:
        row.epoch, row.sent_at = self.limit.epoch, time.monotonic()
        self._path = row.question.path
        self._running[row.key] = self._task(self._ask(row))

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    async def _ask(self, row: Row) -> None:
        reply = await self._connection.post(row.question.path, row.question.body)
        in_use = self.running
        self._running.pop(row.key, None)
        verdict = verdict_of(
            reply, row.request, accepts=self.health.accepts, hidden=self._connection.key.hidden
        )
        match verdict.kind:
            case Kind.ANSWER:
                self._answered(row, verdict, in_use)
            case Kind.BUSY:
                self._busy(row, verdict)
            case Kind.AWAY:
                self._away(row, verdict, alone=in_use == 1)
            case Kind.FAULT:
                self._fault(row, verdict)
        self.pump()

    # --- outcomes ----------------------------------------------------------------------------

    def _answered(self, row: Row, verdict: Verdict, in_use: int) -> None:
        answer = verdict.answer
        assert answer is not None
        self.limit.succeeded(in_use=in_use)
        self.health.answered()
        self._end(
            row,
            Generation(
                key=row.key,
                choices=answer.choices,
                usage=answer.usage,
                error=answer.error,
                latency_ms=int((time.monotonic() - row.since) * 1000),
            ),
        )
        self._judge_held()

    def _busy(self, row: Row, verdict: Verdict) -> None:
        self.limit.refused(epoch=row.epoch, held=self.running)
        self.health.refused()
        if self.health.is_proven_since(row.sent_at):
            row.refusals += 1
        if row.refusals > MOST_REFUSALS:
            self._fail(row, verdict.error)
            return
        if verdict.retry_after is not None:
            self.health.pause(verdict.retry_after)
        elif not self._running:
            self.health.streak += 1
            self.health.pause(pause(self.health.streak))
        self._again(row, after=pause(row.refusals) if row.refusals > 1 else 0.0)

    def _away(self, row: Row, verdict: Verdict, *, alone: bool) -> None:
        if verdict.broken:
            row.outages += 1
            row.outages_alone += alone
        elif self.health.is_proven_since(row.sent_at):
            row.returns += 1
        if row.returns > MOST_RETURNS:
            self._fail(row, verdict.error)
        elif row.outages_alone >= MOST_OUTAGES_ALONE:
            self._fail(
                row,
                failure_of(
                    f"The endpoint went away {row.outages_alone} times while it answered this row "
                    "alone."
                ),
            )
        else:
            self._again(row)
        self.health.problem = self.health.problem or verdict.reason
        self.check()

    def _fault(self, row: Row, verdict: Verdict) -> None:
        if verdict.slow:
            self.limit.slowed(epoch=row.epoch)
        if self.health.is_healthy_since(row.sent_at):
            self._blame(row, verdict)
        else:
            self._held.append((row, verdict))
            self.check()

    def _judge_held(self) -> None:
        """Decide on the rows that failed while nothing was answered, once something was."""
        if self.health.problem is not None:  # then the check decides
            return
        held, self._held = self._held, []
        for row, verdict in held:
            if row.is_doubted and self.health.is_healthy_since(row.sent_at):
                self._blame(row, verdict)
            else:  # the endpoint may have failed, and be well again
                row.is_doubted = True
                self._again(row)

    def _blame(self, row: Row, verdict: Verdict) -> None:
        row.attempts += 1
        if row.attempts >= verdict.attempts:
            self._fail(row, verdict.error)
        else:
            self._again(row, after=pause(row.attempts))

    def _fail(self, row: Row, error: RowError) -> None:
        latency = int((time.monotonic() - row.since) * 1000)
        self._end(row, Generation(key=row.key, error=error, latency_ms=latency))

    def _end(self, row: Row, generation: Generation) -> None:
        if self._rows.pop(row.key, None) is row:
            self._deliver(generation)

    def _again(self, row: Row, *, after: float = 0.0) -> None:
        """Put a row back, at once or after some seconds."""
        self.retries += 1
        if after:
            asyncio.get_running_loop().call_later(after, self._put_back, row)
        elif self._rows.get(row.key) is row:
            self._waiting.put_back(row)

    def _put_back(self, row: Row) -> None:
        if self._rows.get(row.key) is row:
            self._waiting.put_back(row)
            self.pump()

    # --- the endpoint itself -----------------------------------------------------------------

    async def _ask_until_healthy(self) -> None:
        attempt = 0
        while True:
            try:
                await self.health.ask(self._connection, path=self._path)
                break
            except EndpointUnavailable as error:
                self.health.failed(error)
                for row, _ in self._held:  # every row fails alike: none of them is to blame
                    self._again(row)
                self._held = []
            attempt += 1
            await asyncio.sleep(pause(attempt))
            self._connection.key.renew()
        if self.health.problem is not None:
            self.health.recovered()
        self._check = None
        self._judge_held()
        self.pump()


def pause(attempt: int) -> float:
    """Return the seconds before another attempt, longer for each and never the same."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
