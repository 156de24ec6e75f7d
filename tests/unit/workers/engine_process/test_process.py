from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.params import SamplingParams
from batchgen.core.rows import Generation, GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.errors import EngineFailed, UnsupportedModel
from batchgen_workers import testing
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process.process import EngineProcess
from tests.support.workers import is_alive, wait_until

ORPHAN = """
import sys, time
from pathlib import Path
from batchgen.engine.config import EngineConfig
from batchgen.core.params import SamplingParams
from batchgen.core.rows import GenerationRequest
from batchgen_workers import testing
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.engine_process.process import EngineProcess
process = EngineProcess(EngineConfig(model_path=Path("/"), model_name="t"), factory=testing.FAST)
process.start(CancelToken())
request = GenerationRequest(key=1, params=SamplingParams(), prompt=testing.HANG)
process.send([request])
print(process.pid, flush=True)
time.sleep(600)
"""


def config(max_num_seqs: int = 4) -> EngineConfig:
    return EngineConfig(model_path=Path("/models/t"), model_name="t", max_num_seqs=max_num_seqs)


@contextmanager
def running(factory: str = testing.FAST, **options: Any) -> Iterator[EngineProcess]:
    process = EngineProcess(config(), factory=factory, **options)
    try:
        process.start(CancelToken())
        yield process
    finally:
        process.close()


def requests(*keys: int, prompt: str = "hello", tokens: int = 2) -> list[GenerationRequest]:
    params = SamplingParams(max_tokens=tokens, temperature=0)
    return [GenerationRequest(key=key, params=params, prompt=f"{prompt} {key}") for key in keys]


class Answers:
    """Collects what comes back."""

    def __init__(self) -> None:
        self.received: list[Generation] = []

    def __call__(self, generations: list[Generation]) -> None:
        self.received += generations

    @property
    def keys(self) -> set[int]:
        return {generation.key for generation in self.received}


def test_every_row_is_answered_once_though_few_fit_at_a_time() -> None:
    answers = Answers()
    with running() as process:
        process.on_results = answers
        assert process.info is not None
        assert process.info.max_num_seqs == 4
        process.send(requests(*range(500)))
        wait_until(lambda: len(answers.received) >= 500)
        wait_until(lambda: process.stats is not None and process.stats.generated_tokens == 1000)
        assert process.outstanding == 0
    assert answers.keys == set(range(500))
    assert len(answers.received) == 500
    assert answers.received[0].choices[0].text.count(" ") == 1


def test_an_aborted_row_is_never_heard_of_again() -> None:
    answers = Answers()
    with running(testing.SLOW) as process:
        process.on_results = answers
        process.send(requests(1, 2, tokens=100_000))
        process.abort([1, 2, 99])
        assert process.outstanding == 0
        process.send(requests(3))
        wait_until(lambda: answers.keys == {3})
        wait_until(lambda: process.stats is not None and process.stats.running == 0)


def test_a_dying_engine_names_the_rows_it_had() -> None:
    dead: list[list[int]] = []
    with running(testing.SLOW) as process:
        process.on_death = dead.append
        process.send(requests(1, tokens=100_000))
        process.send(requests(2, prompt=testing.EXIT))
        wait_until(lambda: bool(dead))
        assert [sorted(keys) for keys in dead] == [[1, 2]]
        assert process.is_dead
        assert process.outstanding == 0
        with pytest.raises(EngineFailed, match="exit status 1"):
            process.send(requests(3))


def test_a_failing_step_says_why_and_quotes_no_prompt(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with running(log_file=log) as process:
        process.send(requests(1, prompt=f"{testing.RAISE} my secret"))
        wait_until(lambda: process.is_dead)
        assert process.failure is not None
        assert process.failure.message == "The engine failed: ValueError"
    said = log.read_text(encoding="utf-8")
    assert "ValueError" in said
    assert "secret" not in said


def test_a_refused_model_keeps_its_own_error() -> None:
    process = EngineProcess(config(), factory=testing.REFUSING, log_file=Path(os.devnull))
    with pytest.raises(UnsupportedModel, match="bypasses"):
        process.start(CancelToken())
    process.close()
    assert not is_alive(process.pid)


def test_an_engine_that_cannot_be_imported_is_a_clear_error() -> None:
    process = EngineProcess(config(), factory="batchgen_nowhere:Engine", log_file=Path(os.devnull))
    with pytest.raises(EngineFailed, match="batchgen_nowhere"):
        process.start(CancelToken())
    process.close()


def test_a_start_can_be_given_up() -> None:
    process = EngineProcess(config(), factory=testing.FAST)
    token = CancelToken()
    token.cancel()
    with pytest.raises(EngineFailed, match="stopped"):
        process.start(token)
    assert not is_alive(process.pid)


def test_closing_ends_the_child_even_in_the_middle_of_a_step() -> None:
    with running() as process:
        process.send(requests(1, prompt=testing.HANG))
    assert not is_alive(process.pid)


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
    with running() as process:
        process.on_results = answers
        os.kill(process.pid, number)
        process.send(requests(1))
        wait_until(lambda: answers.keys == {1})


def test_an_engine_with_rows_that_does_not_move_is_stalled() -> None:
    with running() as process:
        assert process.stalled_for() < 1
        process.send(requests(1, prompt=testing.HANG))
        wait_until(lambda: process.stalled_for() > 0.2)


def test_a_module_in_the_current_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit(3)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with running() as process:
        assert process.info is not None


def test_a_child_has_no_password_and_asks_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_DATABASE_URL", "postgresql://user:s3cret@localhost/db")
    monkeypatch.setenv("BATCHGEN_BROKER_URL", "redis://:s3cret@localhost/0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with running() as process:
        found = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    assert b"HF_HUB_OFFLINE=1" in found
    assert not [value for value in found if b"s3cret" in value]
