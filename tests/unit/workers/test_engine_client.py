from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchgen.engine.config import EngineConfig
from batchgen.errors import EngineFailed, UnsupportedModel
from batchgen.io.params import SamplingParams
from batchgen.io.rows import Generation, GenerationRequest
from batchgen_workers import testing
from batchgen_workers.engine_client import EngineClient
from tests.support.holding import Hold
from tests.support.workers import is_alive, wait_until

NEVER: Callable[[], bool] = lambda: False  # noqa: E731 (a constant that is called)

ORPHAN = """
import sys, time
from pathlib import Path
from batchgen.engine.config import EngineConfig
from batchgen.io.params import SamplingParams
from batchgen.io.rows import GenerationRequest
from batchgen_workers import testing
from batchgen_workers.engine_client import EngineClient
client = EngineClient(EngineConfig(model_path=Path("/"), model_name="t"), factory=testing.FAST)
client.start()
request = GenerationRequest(key=1, params=SamplingParams(), prompt=testing.HANG)
client.submit([request], print, give_up=lambda: False)
print(client.pid, flush=True)
time.sleep(600)
"""


def config(max_num_seqs: int = 4) -> EngineConfig:
    return EngineConfig(model_path=Path("/models/t"), model_name="t", max_num_seqs=max_num_seqs)


@contextmanager
def running(factory: str = testing.FAST, **options: Any) -> Iterator[EngineClient]:
    client = EngineClient(config(), factory=factory, **options)
    try:
        client.start()
        yield client
    finally:
        client.close()


def requests(*keys: int, prompt: str = "hello", tokens: int = 2) -> list[GenerationRequest]:
    params = SamplingParams(max_tokens=tokens, temperature=0)
    return [GenerationRequest(key=key, params=params, prompt=f"{prompt} {key}") for key in keys]


class Answers:
    """Collects what comes back."""

    def __init__(self) -> None:
        self.received: list[Generation] = []

    def __call__(self, generation: Generation) -> None:
        self.received.append(generation)

    @property
    def keys(self) -> set[int]:
        return {generation.key for generation in self.received}


def test_every_row_is_answered_once_though_few_fit_at_a_time() -> None:
    answers = Answers()
    with running() as client:
        assert client.info is not None
        assert client.info.max_num_seqs == 4
        assert client.submit(requests(*range(500)), answers, give_up=NEVER)
        wait_until(lambda: len(answers.received) >= 500)
        wait_until(lambda: client.stats is not None and client.stats.generated_tokens == 1000)
        assert client.credits.taken == client.outstanding == 0
    assert answers.keys == set(range(500))
    assert len(answers.received) == 500
    assert answers.received[0].choices[0].text.count(" ") == 1


def test_no_more_rows_are_outstanding_than_there_are_credits(hold: Hold) -> None:
    answers = Answers()
    hold.after(0)
    with running(testing.FAST) as client:
        total = client.credits.total
        assert total >= 2 * 4
        thread = threading.Thread(
            target=client.submit, args=(requests(*range(3 * total)), answers), kwargs=BOUNDED
        )
        thread.start()
        for ended in (0, total):
            wait_until(lambda ended=ended: len(answers.received) == ended)  # type: ignore[misc]
            wait_until(lambda: client.credits.taken == total)
            assert client.outstanding <= total
            hold.after(total)
        assert thread.is_alive()
        hold.release()
        thread.join()
        wait_until(lambda: len(answers.received) == 3 * total)


BOUNDED = {"give_up": NEVER}


def test_giving_up_ends_a_submit_that_waits_for_room() -> None:
    stop = threading.Event()
    results: list[bool] = []
    with running() as client:
        blocked = requests(*range(1000), prompt=testing.HANG)
        thread = threading.Thread(
            target=lambda: results.append(client.submit(blocked, print, give_up=stop.is_set))
        )
        thread.start()
        wait_until(lambda: client.credits.taken == client.credits.total)
        stop.set()
        client.credits.wake()
        thread.join(10)
    assert results == [False]


def test_an_aborted_row_is_never_heard_of_again() -> None:
    answers = Answers()
    with running(testing.SLOW) as client:
        client.submit(requests(1, 2, tokens=100_000), answers, give_up=NEVER)
        client.abort([1, 2, 99])
        assert client.credits.taken == client.outstanding == 0
        client.submit(requests(3), answers, give_up=NEVER)
        wait_until(lambda: answers.keys == {3})
        wait_until(lambda: client.stats is not None and client.stats.running == 0)


def test_a_dying_engine_names_the_rows_it_had() -> None:
    dead: list[list[int]] = []
    with running(testing.SLOW) as client:
        client.on_death = dead.append
        client.submit(requests(1, tokens=100_000), print, give_up=NEVER)
        client.submit(requests(2, prompt=testing.EXIT), print, give_up=NEVER)
        wait_until(lambda: bool(dead))
        assert [sorted(keys) for keys in dead] == [[1, 2]]
        assert client.is_dead
        assert client.credits.taken == 0
        with pytest.raises(EngineFailed, match="exit status 1"):
            client.submit(requests(3), print, give_up=NEVER)


def test_death_wakes_a_submit_that_waits_for_room() -> None:
    errors: list[EngineFailed] = []

    def submit(client: EngineClient) -> None:
        try:
            client.submit(requests(*range(1000), prompt=testing.HANG), print, give_up=NEVER)
        except EngineFailed as error:
            errors.append(error)

    with running() as client:
        thread = threading.Thread(target=submit, args=(client,))
        thread.start()
        wait_until(lambda: client.credits.taken == client.credits.total)
        client.kill()
        thread.join(10)
    assert "signal 9" in errors[0].message


def test_a_failing_step_says_why_and_quotes_no_prompt(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with running(log_file=log) as client:
        client.submit(requests(1, prompt=f"{testing.RAISE} my secret"), print, give_up=NEVER)
        wait_until(lambda: client.is_dead)
        assert client.failure is not None
        assert client.failure.message == "The engine failed: ValueError"
    said = log.read_text(encoding="utf-8")
    assert "ValueError" in said
    assert "secret" not in said


def test_a_refused_model_keeps_its_own_error() -> None:
    client = EngineClient(config(), factory=testing.REFUSING, log_file=Path(os.devnull))
    with pytest.raises(UnsupportedModel, match="bypasses"):
        client.start()
    client.close()
    assert not is_alive(client.pid)


def test_an_engine_that_cannot_be_imported_is_a_clear_error() -> None:
    client = EngineClient(config(), factory="batchgen_nowhere:Engine", log_file=Path(os.devnull))
    with pytest.raises(EngineFailed, match="batchgen_nowhere"):
        client.start()
    client.close()


def test_a_start_can_be_given_up() -> None:
    client = EngineClient(config(), factory=testing.FAST)
    with pytest.raises(EngineFailed, match="stopped"):
        client.start(give_up=lambda: True)
    assert not is_alive(client.pid)


def test_closing_ends_the_child_even_in_the_middle_of_a_step() -> None:
    with running() as client:
        client.submit(requests(1, prompt=testing.HANG), print, give_up=NEVER)
    assert not is_alive(client.pid)


def test_a_killed_worker_leaves_no_orphan_even_mid_step() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        assert is_alive(child)
        worker.kill()
    wait_until(lambda: not is_alive(child))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_group_do_not_end_the_engine(number: signal.Signals) -> None:
    answers = Answers()
    with running() as client:
        os.kill(client.pid, number)
        client.submit(requests(1), answers, give_up=NEVER)
        wait_until(lambda: answers.keys == {1})


def test_an_engine_with_rows_that_does_not_move_is_stalled() -> None:
    with running() as client:
        assert client.stalled_for() < 1
        client.submit(requests(1, prompt=testing.HANG), print, give_up=NEVER)
        wait_until(lambda: client.stalled_for() > 0.2)


def test_a_module_in_the_current_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit(3)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with running() as client:
        assert client.info is not None


def test_a_child_has_no_password_and_asks_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_DATABASE_URL", "postgresql://user:s3cret@localhost/db")
    monkeypatch.setenv("BATCHGEN_BROKER_URL", "redis://:s3cret@localhost/0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with running() as client:
        found = Path(f"/proc/{client.pid}/environ").read_bytes().split(b"\0")
    assert b"HF_HUB_OFFLINE=1" in found
    assert not [value for value in found if b"s3cret" in value]
