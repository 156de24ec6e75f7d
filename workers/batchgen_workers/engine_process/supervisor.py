"""Keeps one engine alive across the deaths of its child, and owns every row that is in flight.

submit ─► rows {key: row} ─► child ─► answers ─► the row's `on_result`
              ▲                │ dies
              └── supervisor ◄─┘
                  a fresh child, then
                    the death says nothing of the rows: all of them again
                    it may be their doing:              apart, by halves (`isolation`)

`rows` is the one map of what is in flight on the worker's side, and its size the one limit: a row
has its place from `submit` until its answer, or until its owner takes it back. While the
supervisor is at work on a death no other rows enter; they wait in `submit` and lose nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.core.numerics import Numerics
from batchgen.core.params import SamplingParams
from batchgen.core.rows import Generation, GenerationRequest, RowError
from batchgen.errors import BatchgenError, EngineFailed
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process.isolation import Isolation
from batchgen_workers.engine_process.process import EngineProcess
from batchgen_workers.logs import get_logger

BATCHES_AHEAD = 2  # full batches of rows in the engine: one computing, one waiting
LEAST_PLACES = 32  # rows in flight where a batch is small
MAX_DEATHS = 3  # fresh children in a row that do not get as far as one answer
PAUSE_AFTER_DEATH = 0.2  # seconds; a GPU frees the dead child's memory meanwhile
KILLS_TOLERATED = 1  # SIGKILLs in a row from outside, without an answer, before the batch shrinks

# What a fresh child answers before it is trusted: one that cannot is broken, whatever the rows.
CANARY = GenerationRequest(key=-1, params=SamplingParams(max_tokens=1, temperature=0), prompt="1")
POISON = RowError(
    code="poison", message="This row ended the engine twice when it was computed alone."
)

log = get_logger(__name__)


class _Closed(Exception):
    """The supervisor is being closed: leave everything."""


@dataclass(frozen=True, slots=True)
class EngineRow:
    """A row on its way through the engine."""

    request: GenerationRequest
    #: Called once with the answer, on a thread of the supervisor's.
    on_result: Callable[[Generation], None]
    #: Who takes the row back, or is told of a death: a shard. Told apart by identity.
    owner: object = None


@dataclass(frozen=True, slots=True)
class _Death:
    process: EngineProcess
    # what the child had not answered
    keys: list[int]

    @property
    def error(self) -> BatchgenError:
        return self.process.failure or EngineFailed()


class EngineSupervisor:
    """The engine of one worker.

    supervisor = EngineSupervisor(
        lambda halvings: EngineProcess(config.halved(halvings)), max_num_seqs=128
    )
    supervisor.start(token)
    supervisor.submit([EngineRow(request, on_result, owner)], token)
    """

    def __init__(self, spawn: Callable[[int], EngineProcess], *, max_num_seqs: int) -> None:
        """`spawn` makes a child whose batch, `max_num_seqs` at first, was halved that often."""
        self._spawn = spawn
        self._max_num_seqs = max_num_seqs
        #: Called on every death that rows may have caused, with the owners of the suspects.
        self.on_death: Callable[[list[object], BatchgenError], None] = lambda owners, error: None
        #: Called when rows ended, when a new child is ready, and when there will be no more.
        self.on_change: Callable[[], None] = lambda: None
        #: Set once no child gets anywhere any more; why the worker has to end.
        self.failure: BatchgenError | None = None
        #: How the present child, or the last one that got ready, computes.
        self.numerics: Numerics | None = None
        self._process: EngineProcess | None = None
        self._first_row_at: float | None = None
        # {key: row} of all that was submitted and has no answer
        self._rows: dict[int, EngineRow] = {}
        self._changed = threading.Condition()
        # Whether `submit` may hand rows over.
        self._open = False
        self._deaths: deque[_Death] = deque()
        # Rows to run apart although no engine died of them yet.
        self._apart: deque[list[int]] = deque()
        # Rows without fault that lost their child.
        self._innocent: deque[int] = deque()
        self._halvings = 0
        self._kills = 0
        self._closing = CancelToken()
        self._supervisor = threading.Thread(
            target=self._supervise, name="engine-supervisor", daemon=True
        )

    @property
    def is_ready(self) -> bool:
        """Whether rows can be submitted now."""
        return self._open

    @property
    def wants_rows(self) -> bool:
        """Whether the engine would compute more rows now than it has: else others may have them."""
        return self._open and self.outstanding < self._max_num_seqs

    @property
    def places(self) -> int:
        """Rows that may be in flight: the one limit between the worker's input and the engine."""
        return max(LEAST_PLACES, BATCHES_AHEAD * self._max_num_seqs)

    @property
    def info(self) -> EngineInfo | None:
        """What the present child settled on."""
        return self._process.info if self._process else None

    @property
    def stats(self) -> EngineStats | None:
        """The present child's last counters."""
        return self._process.stats if self._process else None

    @property
    def outstanding(self) -> int:
        """Rows in flight: in the engine, or on their way back into it."""
        return len(self._rows)

    @property
    def first_row_at(self) -> float | None:
        """When the first row of all was sent, seconds since the epoch."""
        return self._first_row_at or (self._process.first_row_at if self._process else None)

    def start(self, token: CancelToken) -> EngineInfo:
        """Start the first child; raise its error, or EngineFailed, where it cannot run."""
        with token.calling(self._closing.cancel):
            info = self._start()
        with self._changed:
            self._open = not self._deaths
        self._supervisor.start()
        return info

    def submit(self, rows: Sequence[EngineRow], token: CancelToken, *, apart: bool = False) -> bool:
        """Hand rows over once there are places for all of them: at most `LEAST_PLACES` at a time.

        Each row's `on_result` is called once, unless its owner takes it back. `apart` runs the
        rows with nothing else in the engine, as suspects, and waits for the last of them.

        Returns False where `token` was cancelled first: the rows are not in flight then, but for
        those apart, which are their owner's to take back. Raises EngineFailed once there will be
        no engine.
        """
        assert len(rows) <= LEAST_PLACES, len(rows)
        return self._enter_apart(rows, token) if apart else self._enter(rows, token)

    def take_back(self, owner: object) -> None:
        """Take an owner's rows back, wherever they are: it is told of none of them any more."""
        with self._changed:
            keys = [key for key, row in self._rows.items() if row.owner is owner]
            self._forget(keys)
        if keys and self._process is not None:
            self._process.abort(keys)

    def tokens_running(self, owner: object) -> int:
        """Return the tokens of an owner's rows that are being answered, as a child last told."""
        told = self._process.progress if self._process else {}
        with self._changed:
            rows = [key for key, row in self._rows.items() if row.owner is owner]
        return sum(told.get(key, 0) for key in rows)

    def check_stalled(self, timeout: float) -> None:
        """End a child that has rows but has not moved for `timeout` seconds."""
        process = self._process
        if process is not None and (stalled := process.stalled_for()) > timeout:
            log.error("engine stalled", seconds=round(stalled), rows=process.outstanding)
            process.kill()

    def close(self) -> None:
        """End the child for good."""
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
        except EngineFailed:  # it died before it had these: the next one gets them
            with self._changed:
                self._innocent.extend(row.request.key for row in rows)
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
        """Wait until something happened; return False where nobody wants it any more."""

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
        """Pass answers on, each to its row, whose place is free then."""
        with self._changed:
            ended = [(self._rows.pop(one.key, None), one) for one in generations]
            self._kills = 0
            self._changed.notify_all()
        for row, generation in ended:
            if row is not None:
                row.on_result(generation)
        self.on_change()

    # --- children ----------------------------------------------------------------------------

    def _start(self) -> EngineInfo:
        process = self._process = self._spawn(self._halvings)
        process.on_death = lambda keys: self._died(process, keys)
        process.on_results = self._receive
        info = process.start(self._closing)
        device, _, _ = info.device.partition(":")
        self.numerics = Numerics(
            device=device, dtype=info.dtype, quantize=info.quantize, kernels=info.kernels
        )
        return info

    def _died(self, process: EngineProcess, keys: list[int]) -> None:
        """Note a death, on the reader thread of the child."""
        if self._closing.is_cancelled or process.info is None:
            return  # who starts a child that never gets ready learns it there
        self._first_row_at = self.first_row_at
        death = _Death(process, keys)
        log.error("engine died", error=death.error.message, rows=len(keys))
        with self._changed:
            self._open = False
            self._deaths.append(death)
            self._changed.notify_all()

    def _revive(self, error: BatchgenError) -> None:
        """Have a fresh child that has shown that it can answer; raise EngineFailed."""
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
                log.info("engine restarted", halvings=self._halvings)
                return
        raise EngineFailed(
            f"The engine died {MAX_DEATHS} times in a row without an answer. {error.message} "
            "See the log, and `batchgen doctor`."
        )

    def _ask_canary(self) -> None:
        """Wait for an answer of a child that has nothing else; raise its error where it dies."""
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
                    self._wait(lambda: bool(self._apart or self._innocent))
                    self._open = False
                self._put_in_order()
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
        """Wait until something happened or a child died; raise _Closed. The lock is held."""
        self._closing.wait_for(self._changed, lambda: happened() or bool(self._deaths))
        if self._closing.is_cancelled:
            raise _Closed

    def _put_in_order(self) -> None:
        """Deal with every death and every suspect until only healthy rows are at work."""
        while self._deaths or self._apart or self._innocent:
            if self._deaths:
                self._recover(self._deaths.popleft())
            elif self._innocent:
                self._return_innocent()
            elif self._are_alone():
                self._isolate(Isolation(self._apart.popleft()))

    def _recover(self, death: _Death) -> None:
        suspected = self._may_be_their_doing(death)
        self._revive(death.error)
        if not suspected:
            self._innocent.extend(death.keys)
            return
        isolation = Isolation([])
        self._condemn(isolation.died(death.keys))
        self._isolate(isolation)

    def _may_be_their_doing(self, death: _Death) -> bool:
        """Tell whether a death says anything of the rows that the child had."""
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
        """Let the next child compute half as many rows at once; False where it is one already."""
        if self._max_num_seqs >> self._halvings <= 1:
            return False
        self._halvings += 1
        log.warning("batch halved", max_num_seqs=self._max_num_seqs >> self._halvings)
        return True

    def _return_innocent(self) -> None:
        """Hand rows to the present child again; what it cannot take is left for the next one."""
        with self._changed:
            some = list(self._innocent)
        if self._send(some):
            with self._changed:
                for _ in some:
                    self._innocent.popleft()

    def _are_alone(self) -> bool:
        """Wait until only rows to run apart are in flight; False where others go first."""
        with self._changed:
            self._wait(lambda: bool(self._innocent) or self._rows.keys() <= self._suspects())
            return not (self._deaths or self._innocent)

    def _suspects(self) -> set[int]:
        return set(itertools.chain(*self._apart))

    def _isolate(self, isolation: Isolation) -> None:
        """Try every suspect apart until each has an answer or is known to be poison."""
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
            if self._may_be_their_doing(death):
                poison = isolation.died(death.keys)
            else:
                isolation.try_again(death.keys)
            self._revive(death.error)
            self._condemn(poison)

    def _send(self, keys: Sequence[int]) -> bool:
        """Hand rows that are still wanted to the present child; return False where it is dead."""
        process = self._process
        assert process is not None
        with self._changed:
            requests = [self._rows[key].request for key in keys if key in self._rows]
        try:
            process.send(requests)
        except EngineFailed:
            return False
        return True

    def _condemn(self, key: int | None) -> None:
        """Give a row the error that says what it does."""
        if key is not None:
            log.error("row is poison")
            self._receive([Generation(key=key, error=POISON)])
