"""Restarts the engine process when it dies, and owns every row that is in flight.

submit ─► rows {key: row} ─► process ─► answers ─► the row's `on_result`
              ▲                 │ dies
              └── supervisor ◄──┘
                  starts a new process, then
                    the rows did not cause the death: sends all of them again
                    the rows may have caused it:      runs them apart, by halves (`isolation`)

`rows` is the only map of the rows in flight on the worker's side, and its size is the only limit. A
row has its place from `submit` until its answer, or until its owner takes it back. While the
supervisor handles a death, other rows wait in `submit` and lose nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.numerics import Numerics
from batchgen.core.params import SamplingParams
from batchgen.core.rows import Generation, GenerationRequest, RowError
from batchgen.errors import BatchgenError, EngineFailed
from batchgen.telemetry.counters import engine_restarts
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process.isolation import Isolation
from batchgen_workers.engine_process.process import EngineProcess
from batchgen_workers.logs import get_logger

BATCHES_AHEAD = 2  # full batches of rows in the engine: one computing, one waiting
LEAST_PLACES = 32  # rows that may be in flight at least, even if the batch is smaller
MAX_DEATHS = 3  # new processes in a row that die before their first answer
PAUSE_AFTER_DEATH = 0.2  # seconds; a GPU frees the memory of the dead process meanwhile
KILLS_TOLERATED = 1  # SIGKILLs in a row from outside, without an answer, before the batch shrinks

# A new process must answer this row first. If it cannot, it is broken, and no row is to blame.
CANARY = GenerationRequest(key=-1, params=SamplingParams(max_tokens=1, temperature=0), prompt="1")
POISON = RowError(
    code="poison", message="This row ended the engine twice when it was computed alone."
)

log = get_logger(__name__)


class _Closed(Exception):
    """Raised on the supervisor thread when the supervisor is being closed."""


@dataclass(frozen=True, slots=True)
class EngineRow:
    """A row on its way through the engine."""

    request: GenerationRequest
    #: Called once with the answer, on a thread of the supervisor.
    on_result: Callable[[Generation], None]
    #: The shard of the row, which can take it back and is told of deaths. Compared by identity.
    owner: object = None


@dataclass(frozen=True, slots=True)
class _Death:
    process: EngineProcess
    # of the rows that the process had not answered
    keys: list[int]

    @property
    def error(self) -> BatchgenError:
        return self.process.failure or EngineFailed()


class EngineSupervisor:
    """The engine of one worker, in a process that is restarted when it dies.

    supervisor = EngineSupervisor(
        lambda halvings: EngineProcess(config.halved(halvings)), max_num_seqs=128
    )
    supervisor.start(token)
    supervisor.submit([EngineRow(request, on_result, owner)], token)
    """

    def __init__(self, spawn: Callable[[int], EngineProcess], *, max_num_seqs: int) -> None:
        """Prepare an engine; `spawn(halvings)` makes a process with the batch halved that often.

        The batch is `max_num_seqs` at first.
        """
        self._spawn = spawn
        self._max_num_seqs = max_num_seqs
        #: Called on every death that rows may have caused, with the owners of these rows.
        self.on_death: Callable[[list[object], BatchgenError], None] = lambda owners, error: None
        #: Called when rows ended, when a new process is ready, and after the last one failed.
        self.on_change: Callable[[], None] = lambda: None
        #: Set once no new process is started any more; the worker has to end then.
        self.failure: BatchgenError | None = None
        self._numerics: Numerics | None = None
        self._process: EngineProcess | None = None
        self._first_row_at: float | None = None
        # {key: row} of all that was submitted and has no answer
        self._rows: dict[int, EngineRow] = {}
        self._changed = threading.Condition()
        # True while `submit` may send rows.
        self._open = False
        self._deaths: deque[_Death] = deque()
        # Keys of rows to run apart although they have ended no engine yet.
        self._apart: deque[list[int]] = deque()
        # Keys of rows that lost their process without causing its death; they are sent again.
        self._to_resend: deque[int] = deque()
        self._halvings = 0
        self._kills = 0
        self._closing = CancelToken()
        self._supervisor = threading.Thread(
            target=self._supervise, name="engine-supervisor", daemon=True
        )

    @property
    def is_ready(self) -> bool:
        """True while rows can be submitted."""
        return self._open

    @property
    def wants_rows(self) -> bool:
        """True while the engine has fewer rows than it can compute at once.

        Otherwise rows that are not submitted yet are left to other workers. An endpoint computes as
        many as it takes at present, and none while it is away.
        """
        stats = self.stats
        if stats is not None and stats.waiting_for:
            return False
        most = min(self._max_num_seqs, (stats.concurrency if stats else 0) or self._max_num_seqs)
        return self._open and self.outstanding < most

    @property
    def places(self) -> int:
        """The number of rows that may be in flight."""
        return max(LEAST_PLACES, BATCHES_AHEAD * self._max_num_seqs)

    @property
    def info(self) -> EngineInfo | None:
        """The configuration that the present process chose; None while it loads."""
        return self._process.info if self._process else None

    @property
    def stats(self) -> EngineStats | None:
        """The last counters of the present process."""
        return self._process.stats if self._process else None

    @property
    def answering(self) -> int:
        """The number of rows that were being answered at the last report."""
        return len(self._process.progress) if self._process else 0

    @property
    def numerics(self) -> Numerics | None:
        """The way in which the present process computes, or the last one that was ready."""
        stats = self.stats
        if self._numerics is None or stats is None or not stats.server:
            return self._numerics
        return replace(self._numerics, kernels=stats.server)  # a server may be replaced meanwhile

    @property
    def outstanding(self) -> int:
        """The number of rows in flight: in the engine, or waiting to be sent again."""
        return len(self._rows)

    @property
    def first_row_at(self) -> float | None:
        """The time at which the first row was sent, seconds since the epoch."""
        return self._first_row_at or (self._process.first_row_at if self._process else None)

    def start(self, token: CancelToken) -> EngineInfo:
        """Start the first process; raise its error, or EngineFailed, if it cannot run."""
        with token.calling(self._closing.cancel):
            info = self._start()
        with self._changed:
            self._open = not self._deaths
        self._supervisor.start()
        return info

    def submit(self, rows: Sequence[EngineRow], token: CancelToken, *, apart: bool = False) -> bool:
        """Wait for places for all rows, at most `LEAST_PLACES` of them, and send them.

        Each row's `on_result` is called once, unless its owner takes it back. With `apart` the
        rows run with no other row in the engine, and the call returns after the last answer.

        Returns False if `token` was cancelled first. The rows are not in flight then; only with
        `apart` they are, until their owner takes them back. Raises EngineFailed once no engine can
        be started any more.
        """
        assert len(rows) <= LEAST_PLACES, len(rows)
        return self._enter_apart(rows, token) if apart else self._enter(rows, token)

    def take_back(self, owner: object) -> None:
        """Remove all rows of an owner: `on_result` is not called for them any more."""
        with self._changed:
            keys = [key for key, row in self._rows.items() if row.owner is owner]
            self._forget(keys)
        if keys and self._process is not None:
            self._process.abort(keys)

    def tokens_running(self, owner: object) -> int:
        """Return the tokens of an owner's rows that are being answered, as of the last report."""
        tokens = self._process.progress if self._process else {}
        with self._changed:
            rows = [key for key, row in self._rows.items() if row.owner is owner]
        return sum(tokens.get(key, 0) for key in rows)

    def check_stalled(self, timeout: float) -> None:
        """Kill a process that has rows but made no progress for `timeout` seconds."""
        process = self._process
        if process is not None and (stalled := process.stalled_for()) > timeout:
            log.error("engine stalled", seconds=round(stalled), rows=process.outstanding)
            process.kill()

    def close(self) -> None:
        """End the process and start no other one."""
        self._closing.cancel()
        with self._changed:
            self._changed.notify_all()
        if self._supervisor.is_alive():
            self._supervisor.join()
        if self._process is not None:
            self._process.close()

    # --- rows in and out ---------------------------------------------------------------------

    def _enter(self, rows: Sequence[EngineRow], token: CancelToken) -> bool:
        with self._changed:
            if not self._wait_unless(token, lambda: self._open and self._has_places(len(rows))):
                return False
            process = self._process
            assert process is not None
            self._register(rows)
        try:
            process.send([row.request for row in rows])
        except EngineFailed:  # it died before it had these rows: the next process gets them
            with self._changed:
                self._to_resend.extend(row.request.key for row in rows)
                self._changed.notify_all()
        return True

    def _enter_apart(self, rows: Sequence[EngineRow], token: CancelToken) -> bool:
        keys = [row.request.key for row in rows]
        with self._changed:
            self._register(rows)
            self._apart.append(keys)
            self._changed.notify_all()
            return self._wait_unless(token, lambda: not self._has_any(keys))

    def _wait_unless(self, token: CancelToken, happened: Callable[[], bool]) -> bool:
        """Wait for `happened`; return False if `token` is cancelled or the supervisor is closed.

        Raises EngineFailed. The lock is held.
        """

        def failed_or_happened() -> bool:
            return self.failure is not None or self._closing.is_cancelled or happened()

        token.wait_for(self._changed, failed_or_happened)
        if self.failure is not None:
            raise EngineFailed(self.failure.message)
        return not (token.is_cancelled or self._closing.is_cancelled)

    def _has_places(self, count: int) -> bool:
        return len(self._rows) + count <= self.places

    def _register(self, rows: Sequence[EngineRow]) -> None:
        for row in rows:
            assert row.request.key not in self._rows, row.request
            self._rows[row.request.key] = row

    def _forget(self, keys: Iterable[int]) -> None:
        for key in keys:
            self._rows.pop(key, None)
        self._changed.notify_all()

    def _has_any(self, keys: Iterable[int]) -> bool:
        return any(key in self._rows for key in keys)

    def _receive(self, generations: Collection[Generation]) -> None:
        """Free the places of the answered rows, then pass each answer to its row."""
        with self._changed:
            ended = [(self._rows.pop(one.key, None), one) for one in generations]
            self._kills = 0
            self._changed.notify_all()
        for row, generation in ended:
            if row is not None:
                row.on_result(generation)
        self.on_change()

    # --- processes ---------------------------------------------------------------------------

    def _start(self) -> EngineInfo:
        process = self._process = self._spawn(self._halvings)
        process.on_death = lambda keys: self._died(process, keys)
        process.on_results = self._receive
        info = process.start(self._closing)
        device, _, _ = info.device.partition(":")
        self._numerics = Numerics(
            device=device, dtype=info.dtype, quantize=info.quantize, kernels=info.kernels
        )
        return info

    def _died(self, process: EngineProcess, keys: list[int]) -> None:
        """Note a death; called on the reader thread of the process."""
        if self._closing.is_cancelled or process.info is None:
            return  # `EngineProcess.start` raises the error of a process that was never ready
        self._first_row_at = self.first_row_at
        death = _Death(process, keys)
        log.error("engine died", error=death.error.message, rows=len(keys))
        with self._changed:
            self._open = False
            self._deaths.append(death)
            self._changed.notify_all()

    def _restart(self, error: BatchgenError) -> None:
        """Start a new process that answers the canary; raise EngineFailed after MAX_DEATHS."""
        for _ in range(MAX_DEATHS):
            if self._closing.event.wait(PAUSE_AFTER_DEATH):
                raise _Closed
            try:
                self._start()
                self._ask_canary()
            except BatchgenError as failure:
                error = failure
                log.error("engine not restarted", error=error.message)
            else:
                engine_restarts.inc()
                log.info("engine restarted", halvings=self._halvings)
                return
        raise EngineFailed(
            f"The engine died {MAX_DEATHS} times in a row without an answer. {error.message} "
            "See the log, and `batchgen doctor`."
        )

    def _ask_canary(self) -> None:
        """Send the canary alone and wait for its answer; raise the process's error if it dies."""
        process = self._process
        assert process is not None
        answered = threading.Event()
        with self._changed:
            self._register([EngineRow(CANARY, lambda _: answered.set())])
        try:
            process.send([CANARY])
            with self._changed:
                self._wait(lambda: not self._has_any([CANARY.key]))
                if self._has_any([CANARY.key]):
                    raise self._deaths.popleft().error
        finally:
            with self._changed:
                self._forget([CANARY.key])

    # --- the supervisor ----------------------------------------------------------------------

    def _supervise(self) -> None:
        try:
            while True:
                with self._changed:
                    self._wait(lambda: bool(self._apart or self._to_resend))
                    self._open = False
                self._recover_all()
                with self._changed:
                    self._open = not self._deaths
                    self._changed.notify_all()
                self.on_change()
        except _Closed:
            return
        except EngineFailed as failure:
            with self._changed:
                self.failure = failure
                self._changed.notify_all()
            self.on_change()

    def _wait(self, happened: Callable[[], bool]) -> None:
        """Wait for `happened` or for a death; raise _Closed. The lock is held."""
        self._closing.wait_for(self._changed, lambda: happened() or bool(self._deaths))
        if self._closing.is_cancelled:
            raise _Closed

    def _recover_all(self) -> None:
        """Handle deaths, rows to send again and rows to run apart until none of them is left."""
        while self._deaths or self._apart or self._to_resend:
            if self._deaths:
                self._recover(self._deaths.popleft())
            elif self._to_resend:
                self._resend()
            elif self._wait_until_alone():
                self._isolate(Isolation(self._apart.popleft()))

    def _recover(self, death: _Death) -> None:
        suspected = self._are_rows_suspected(death)
        self._restart(death.error)
        if not suspected:
            self._to_resend.extend(death.keys)
            return
        isolation = Isolation([])
        self._fail_poison(isolation.died(death.keys))
        self._isolate(isolation)

    def _are_rows_suspected(self, death: _Death) -> bool:
        """Return whether the rows of a process may have caused its death.

        If memory ran out, or a SIGKILL came from outside again, the batch is halved first. Rows
        are suspected only once it cannot be halved any more.
        """
        if death.process.ran_out_of_memory:
            suspected = not self._halve_batch()
        elif death.process.was_killed:
            self._kills += 1
            suspected = self._kills > KILLS_TOLERATED and not self._halve_batch()
        else:
            suspected = True
        if suspected:
            self.on_death(self._owners_of(death.keys), death.error)
        return suspected

    def _owners_of(self, keys: Iterable[int]) -> list[object]:
        with self._changed:
            rows = [self._rows[key] for key in keys if key in self._rows]
        return list({id(row.owner): row.owner for row in rows}.values())

    def _halve_batch(self) -> bool:
        """Halve the batch of the next process; return False if it is one row already."""
        if self._max_num_seqs >> self._halvings <= 1:
            return False
        self._halvings += 1
        log.warning("batch halved", max_num_seqs=self._max_num_seqs >> self._halvings)
        return True

    def _resend(self) -> None:
        """Send rows to the present process again; if it is dead, keep them for the next one."""
        with self._changed:
            keys = list(self._to_resend)
        if self._send(keys):
            with self._changed:
                for _ in keys:
                    self._to_resend.popleft()

    def _wait_until_alone(self) -> bool:
        """Wait until only rows to run apart are in flight; return False if other work is first."""
        with self._changed:
            self._wait(lambda: bool(self._to_resend) or self._rows.keys() <= self._apart_keys())
            return not (self._deaths or self._to_resend)

    def _apart_keys(self) -> set[int]:
        return set(itertools.chain(*self._apart))

    def _isolate(self, isolation: Isolation) -> None:
        """Run the suspected rows apart until each has an answer or is found to be poison."""
        while (group := isolation.next_group()) is not None:
            sent = self._send(group)
            with self._changed:
                self._wait(lambda group=group: not self._has_any(group))  # type: ignore[misc]
                death = self._deaths.popleft() if self._deaths else None
            if not sent:
                isolation.try_again(group)
            if death is None:
                continue
            poison = None
            if self._are_rows_suspected(death):
                poison = isolation.died(death.keys)
            else:
                isolation.try_again(death.keys)
            self._restart(death.error)
            self._fail_poison(poison)

    def _send(self, keys: Sequence[int]) -> bool:
        """Send those rows that are still in flight; return False if the process is dead."""
        process = self._process
        assert process is not None
        with self._changed:
            requests = [self._rows[key].request for key in keys if key in self._rows]
        try:
            process.send(requests)
        except EngineFailed:
            return False
        return True

    def _fail_poison(self, key: int | None) -> None:
        """Answer a row with the error POISON; do nothing for None."""
        if key is not None:
            with self._changed:
                row = self._rows.get(key)
            log.error("row is poison", job=row.request.job if row else None)
            self._receive([Generation(key=key, error=POISON)])
