"""Keeps one engine alive across the deaths of its child, with the rows that it holds.

submit ─► rows {key: request} ─► child ─► answers
              ▲                    │ dies
              └── supervisor ◄─────┘
                  a fresh child, then
                    the death says nothing of the rows: all of them again
                    it may be their doing:              apart, by halves (`isolation`)

While the supervisor is at it nobody else's rows enter; they wait in `submit` and lose nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from batchgen.engine.stats import EngineInfo, EngineStats
from batchgen.errors import BatchgenError, EngineFailed
from batchgen.io.numerics import Numerics
from batchgen.io.params import SamplingParams
from batchgen.io.rows import Generation, GenerationRequest, RowError
from batchgen_workers.engine_client import EngineClient, OnResult
from batchgen_workers.frames import ROWS_PER_FRAME, in_frames
from batchgen_workers.isolation import Isolation
from batchgen_workers.logs import get_logger

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
    """The host is being closed: leave everything."""


@dataclass(frozen=True, slots=True)
class _Row:
    request: GenerationRequest
    on_result: OnResult


@dataclass(frozen=True, slots=True)
class _Death:
    client: EngineClient
    # what the child had not answered
    keys: list[int]

    @property
    def error(self) -> BatchgenError:
        return self.client.failure or EngineFailed()


class EngineHost:
    """The engine of one worker.

    host = EngineHost(lambda halvings: EngineClient(config.halved(halvings)), max_num_seqs=128)
    host.start(give_up=stop.is_set)
    host.submit(requests, on_result, give_up=…)
    """

    def __init__(self, spawn: Callable[[int], EngineClient], *, max_num_seqs: int) -> None:
        """`spawn` makes a child whose batch, `max_num_seqs` at first, was halved that often."""
        self._spawn = spawn
        self._max_num_seqs = max_num_seqs
        #: Called on every death that rows may have caused, with the keys of the suspects.
        self.on_death: Callable[[list[int], BatchgenError], None] = lambda keys, error: None
        #: Called when rows ended, when a new child is ready, and when there will be no more.
        self.on_change: Callable[[], None] = lambda: None
        #: Set once no child gets anywhere any more; why the worker has to end.
        self.failure: BatchgenError | None = None
        #: How the present child, or the last one that got ready, computes.
        self.numerics: Numerics | None = None
        self._client: EngineClient | None = None
        self._first_row_at: float | None = None
        # {key: row} of all that was submitted and has no answer
        self._rows: dict[int, _Row] = {}
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
        # Whether the supervisor wants to know of each answer.
        self._watching = False
        self._closing = threading.Event()
        self._supervisor = threading.Thread(
            target=self._supervise, name="engine-supervisor", daemon=True
        )

    @property
    def is_ready(self) -> bool:
        """Whether rows can be submitted now."""
        return self._open

    @property
    def info(self) -> EngineInfo | None:
        """What the present child settled on."""
        return self._client.info if self._client else None

    @property
    def stats(self) -> EngineStats | None:
        """The present child's last counters."""
        return self._client.stats if self._client else None

    @property
    def progress(self) -> Mapping[int, int]:
        """Tokens of rows that are being answered, by key, as the present child last told."""
        return self._client.progress if self._client else {}

    @property
    def outstanding(self) -> int:
        """Rows in the engine, or on their way back into it."""
        return self._client.outstanding if self._client and self._open else len(self._rows)

    @property
    def first_row_at(self) -> float | None:
        """When the first row of all was sent, seconds since the epoch."""
        return self._first_row_at or (self._client.first_row_at if self._client else None)

    def start(self, *, give_up: Callable[[], bool] = lambda: False) -> EngineInfo:
        """Start the first child; raise its error, or EngineFailed, where it cannot run."""
        info = self._start(lambda: give_up() or self._closing.is_set())
        with self._changed:
            self._open = not self._deaths
        self._supervisor.start()
        return info

    def submit(
        self,
        requests: Sequence[GenerationRequest],
        on_result: OnResult,
        *,
        give_up: Callable[[], bool],
        apart: bool = False,
    ) -> bool:
        """Hand rows to the engine as places become free; call `on_result` once for each.

        Returns False where `give_up` became true meanwhile (call `wake` then); some of the rows
        may be in the engine nevertheless. Raises EngineFailed once there will be no engine.
        `apart` runs the rows with nothing else in the engine, as suspects.
        """
        enter = self._enter_apart if apart else self._enter
        return all(enter(part, on_result, give_up) for part in in_frames(requests))

    def abort(self, keys: Iterable[int]) -> None:
        """Take rows back, wherever they are; their callbacks are not called any more."""
        keys = list(keys)
        self._forget(keys)
        if self._client is not None:
            self._client.abort(keys)

    def wake(self) -> None:
        """Let waiting submitters look at their `give_up` again."""
        with self._changed:
            self._changed.notify_all()
        if self._client is not None:
            self._client.credits.wake()

    def check_stalled(self, timeout: float) -> None:
        """End a child that has rows but has not moved for `timeout` seconds."""
        client = self._client
        if client is not None and (stalled := client.stalled_for()) > timeout:
            log.error("engine stalled", seconds=round(stalled), rows=client.outstanding)
            client.kill()

    def close(self) -> None:
        """End the child for good."""
        self._closing.set()
        self.wake()
        if self._supervisor.is_alive():
            self._supervisor.join()
        if self._client is not None:
            self._client.close()

    # --- rows in and out ---------------------------------------------------------------------

    def _enter(
        self, part: Sequence[GenerationRequest], on_result: OnResult, give_up: Callable[[], bool]
    ) -> bool:
        keys = [request.key for request in part]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._open or self._is_over(give_up))
                if self._is_over(give_up):
                    return False
                client = self._client
                assert client is not None
                self._register(part, on_result)
            try:
                if client.submit(part, self._receive, give_up=lambda: not self._open or give_up()):
                    return True
            except EngineFailed:
                pass  # it died before it had these; the next one gets them
            self._forget(keys)

    def _enter_apart(
        self, part: Sequence[GenerationRequest], on_result: OnResult, give_up: Callable[[], bool]
    ) -> bool:
        keys = [request.key for request in part]
        with self._changed:
            self._register(part, on_result)
            self._apart.append(keys)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._has_any(keys) or self._is_over(give_up))
            return not self._is_over(give_up)

    def _is_over(self, give_up: Callable[[], bool]) -> bool:
        if self.failure is not None:
            raise EngineFailed(self.failure.message)
        return self._closing.is_set() or give_up()

    def _register(self, part: Sequence[GenerationRequest], on_result: OnResult) -> None:
        for request in part:
            assert request.key not in self._rows, request
            self._rows[request.key] = _Row(request, on_result)

    def _forget(self, keys: Iterable[int]) -> None:
        with self._changed:
            for key in keys:
                self._rows.pop(key, None)
            self._changed.notify_all()

    def _has_any(self, keys: Iterable[int]) -> bool:
        return any(key in self._rows for key in keys)

    def _receive(self, generation: Generation) -> None:
        with self._changed:
            row = self._rows.pop(generation.key, None)
            self._kills = 0
            if self._watching:
                self._changed.notify_all()
        if row is not None:
            row.on_result(generation)

    # --- children ----------------------------------------------------------------------------

    def _start(self, give_up: Callable[[], bool]) -> EngineInfo:
        client = self._client = self._spawn(self._halvings)
        client.on_death = lambda keys: self._died(client, keys)
        client.on_answers = lambda: self.on_change()
        info = client.start(give_up=give_up)
        device, _, _ = info.device.partition(":")
        self.numerics = Numerics(
            device=device, dtype=info.dtype, quantize=info.quantize, kernels=info.kernels
        )
        return info

    def _died(self, client: EngineClient, keys: list[int]) -> None:
        """Note a death, on the reader thread of the child."""
        if self._closing.is_set() or client.info is None:
            return  # who starts a child that never gets ready learns it there
        self._first_row_at = self.first_row_at
        death = _Death(client, keys)
        log.error("engine died", error=death.error.message, rows=len(keys))
        with self._changed:
            self._open = False
            self._deaths.append(death)
            self._changed.notify_all()

    def _revive(self, error: BatchgenError) -> None:
        """Have a fresh child that has shown that it can answer; raise EngineFailed."""
        for _ in range(MAX_DEATHS):
            if self._closing.wait(PAUSE_AFTER_DEATH):
                raise _Closed
            try:
                self._start(self._closing.is_set)
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
        client = self._client
        assert client is not None
        answered = threading.Event()

        def answer(_: Generation) -> None:
            answered.set()
            with self._changed:
                self._changed.notify_all()

        client.submit([CANARY], answer, give_up=self._closing.is_set)
        with self._changed:
            self._wait(answered.is_set)
            if self._deaths and not answered.is_set():
                raise self._deaths.popleft().error

    # --- the supervisor ----------------------------------------------------------------------

    def _supervise(self) -> None:
        try:
            while True:
                with self._changed:
                    self._wait(lambda: bool(self._apart))
                    self._open = False
                self.wake()  # whoever waits for a place in the engine waits outside from now on
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
        self._watching = True
        self._changed.wait_for(lambda: happened() or bool(self._deaths) or self._closing.is_set())
        self._watching = False
        if self._closing.is_set():
            raise _Closed

    def _put_in_order(self) -> None:
        """Deal with every death and every suspect until only healthy rows are at work."""
        while self._deaths or self._apart or self._innocent:
            if self._deaths:
                self._recover(self._deaths.popleft())
            elif self._innocent:
                self._return_innocent()
            elif self._is_alone_with(self._apart[0]):
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
        if death.client.ran_out_of_memory:
            suspected = not self._halve_batch()
        elif death.client.was_killed:
            self._kills += 1
            suspected = self._kills > KILLS_TOLERATED and not self._halve_batch()
        else:
            suspected = True
        if suspected:
            self.on_death(death.keys, death.error)
        return suspected

    def _halve_batch(self) -> bool:
        """Let the next child compute half as many rows at once; False where it is one already."""
        if self._max_num_seqs >> self._halvings <= 1:
            return False
        self._halvings += 1
        log.warning("batch halved", max_num_seqs=self._max_num_seqs >> self._halvings)
        return True

    def _return_innocent(self) -> None:
        """Hand rows to the present child again; what it cannot take is left for the next one."""
        some = list(itertools.islice(self._innocent, ROWS_PER_FRAME))
        if not self._send(some):
            for _ in some:
                self._innocent.popleft()

    def _is_alone_with(self, keys: Sequence[int]) -> bool:
        """Wait until the engine has no rows but these; False where a child died first."""
        with self._changed:
            self._wait(lambda: not self._rows.keys() - set(itertools.chain(*self._apart)))
            return not self._deaths

    def _isolate(self, isolation: Isolation) -> None:
        """Try every suspect apart until each has an answer or is known to be poison."""
        while (group := isolation.next_group()) is not None:
            unsent = self._send(group)
            with self._changed:
                self._wait(lambda group=group: not self._has_any(group))  # type: ignore[misc]
                death = self._deaths.popleft() if self._deaths else None
            isolation.try_again(unsent)
            if death is None:
                continue
            poison = None
            if self._may_be_their_doing(death):
                poison = isolation.died(death.keys)
            else:
                isolation.try_again(death.keys)
            self._revive(death.error)
            self._condemn(poison)

    def _send(self, keys: Sequence[int]) -> list[int]:
        """Hand rows that are still wanted to the present child; return those it did not get."""
        client = self._client
        assert client is not None
        requests = [self._rows[key].request for key in keys if key in self._rows]
        for at in range(0, len(requests), ROWS_PER_FRAME):
            part = requests[at : at + ROWS_PER_FRAME]
            try:
                if not client.submit(part, self._receive, give_up=self._closing.is_set):
                    raise _Closed
            except EngineFailed:
                return [request.key for request in requests[at:]]
        return []

    def _condemn(self, key: int | None) -> None:
        """Give a row the error that says what it does."""
        if key is not None:
            log.error("row is poison")
            self._receive(Generation(key=key, error=POISON))
