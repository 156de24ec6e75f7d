from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.engine_stats import EngineInfo, EngineStats
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import EngineFailed, InvalidParameter
from batchgen.service import Service
from batchgen.settings import Settings
from batchgen_cli.logs import log_file
from batchgen_workers.service import local
from batchgen_workers.service.local import LocalProgress, LocalRun
from tests.support.homes import answer_some, finish, prompts
from tests.unit.cli.conftest import Command

INFO = EngineInfo(
    model="tiny",
    device="cpu",
    dtype="float32",
    kernels="reference",
    kernels_reason="slower: no C++ compiler",
    block_size=16,
    num_blocks=64,
    max_length=256,
    max_batch_tokens=2048,
    max_num_seqs=128,
)
STATS = EngineStats(generated_tokens=100, kv_blocks=64, kv_blocks_used=16)


class Runner:
    """Stands in for `run_local`: ends a job, or is interrupted half-way."""

    def __init__(self) -> None:
        self.calls = 0
        self.failing: list[int] = []
        self.cut: Collection[int] = ()
        self.interrupted = False
        self.error: Exception | None = None
        self.settings: Settings | None = None
        self.models: Path | None = None

    def __call__(
        self,
        settings: Settings,
        job: str,
        *,
        models: Path,
        on_progress: Callable[[LocalProgress], None],
    ) -> LocalRun:
        """Do what `run_local` would."""
        self.calls += 1
        self.settings, self.models = settings, models
        service = Service(settings, models=models)
        record = service.job(job)
        answer_some(service, record, failing=self.failing, cut=self.cut)
        progress = service.store.jobs.progress(record.id)
        record = service.job(job)
        on_progress(LocalProgress(job=record, progress=progress, engine=INFO, stats=STATS))
        logging.getLogger("batchgen_workers").info("a line of the log")
        if self.error:
            raise self.error
        if self.interrupted:
            service.close()
            raise KeyboardInterrupt  # as a signal ends it
        record = finish(service, record, failing=self.failing, cut=self.cut)
        service.close()
        return LocalRun(job=record, interrupted=False, stats=STATS, first_row_at=None)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    """The process that runs instead of an engine."""
    runner = Runner()
    monkeypatch.setattr(local, "run_local", runner)
    return runner


@pytest.fixture
def run(batchgen: Command, runner: Runner) -> Callable[..., Any]:
    """Run the command on 40 rows: `run(*more arguments)`."""
    prompt_file = batchgen.file("p.jsonl", prompts(40))
    out = batchgen.folder / "out"
    return lambda *args: batchgen("run", prompt_file, "-o", out, "-m", "tiny", *args)


def test_the_dataset_is_in_the_folder(
    batchgen: Command, run: Callable[..., Any], runner: Runner
) -> None:
    result = run("-p", "temperature=0", "--block-size", "32")
    out = batchgen.folder / "out"
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert verify_dataset(out) == []
    names = sorted(path.name for path in (out / ".batchgen").iterdir())
    assert names == ["manifest.json", "run.log"]
    assert "32/40 rows" in result.stderr
    told = "Computing float32 on cpu by plain torch (slower: no C++ compiler)\n"
    assert result.stderr.count(told) == 1
    assert "KV 25 %" in result.stderr
    assert runner.settings
    assert (runner.settings.engine.block_size, runner.models) == (32, batchgen.home / "models")


def test_nothing_is_written_to_the_user_s_home(batchgen: Command, run: Callable[..., Any]) -> None:
    run()
    assert [path.name for path in batchgen.home.iterdir()] == ["models"]


def test_answers_that_were_cut_are_told(
    batchgen: Command, run: Callable[..., Any], runner: Runner
) -> None:
    runner.cut = range(60)
    for _ in range(2):  # computed, and found complete
        result = run()
        assert result.exit_code == 0
        assert "40 answers were cut at max_tokens" in result.stderr
    readme = (batchgen.folder / "out" / "README.md").read_text()
    assert "40 of 40 rows, 0 failed, 40 cut at max_tokens" in readme


def test_failed_rows_are_code_1(run: Callable[..., Any], runner: Runner) -> None:
    runner.failing = [3, 5]
    result = run()
    assert result.exit_code == 1
    assert "2 of 40 rows failed" in result.stderr


def test_an_interrupted_run_goes_on(
    batchgen: Command, run: Callable[..., Any], runner: Runner
) -> None:
    runner.interrupted = True
    result = run()
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.splitlines()[-1] == (
        "Interrupted: 32 of 40 rows are kept. The same command goes on with the rest."
    )
    runner.interrupted = False
    result = run()
    assert result.exit_code == 0
    assert "32 of 40 rows are done" in result.stderr
    assert verify_dataset(batchgen.folder / "out") == []


def test_a_finished_run_computes_nothing_again(
    batchgen: Command, run: Callable[..., Any], runner: Runner
) -> None:
    first = json.loads(run("--json").stdout.splitlines()[-1])
    readme = batchgen.folder / "out" / "README.md"
    readme.write_text("my own words")  # the card is for people to edit
    again = run("--json")
    assert (again.exit_code, runner.calls) == (0, 1)
    times = {"started_at": None, "finalizing_at": None, "ended_at": None, "manifest_sha256": None}
    assert json.loads(again.stdout) == {**first, **times}
    assert readme.read_text() == "my own words"


def test_a_finished_run_that_lost_a_file_says_so(
    batchgen: Command, run: Callable[..., Any]
) -> None:
    run()
    (file,) = (batchgen.folder / "out" / "data").iterdir()
    file.unlink()
    result = run()
    assert result.exit_code == 1
    assert f"data/{file.name} is missing" in result.stderr


def test_a_run_of_a_pipe_goes_on_too(batchgen: Command, runner: Runner) -> None:
    out = batchgen.folder / "out"
    runner.interrupted = True
    stopped = batchgen("run", "-", "-o", out, "-m", "tiny", "-q", stdin=prompts(40))
    assert (stopped.exit_code, "with the same input goes on" in stopped.stderr) == (130, True)
    shutil.rmtree(out)
    runner.interrupted, runner.calls = False, 0
    for _ in range(2):
        batchgen.ok("run", "-", "-o", out, "-m", "tiny", stdin=prompts(5))
    assert runner.calls == 1
    assert batchgen("run", "-", "-o", out, "-m", "tiny", stdin=prompts(6)).exit_code == 2


def test_events_as_json(batchgen: Command, run: Callable[..., Any]) -> None:
    result = run("--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["state"] for event in events] == ["running", "completed"]
    assert events[-1]["output"] == str(batchgen.folder / "out")
    assert result.stderr == ""


def test_quiet_writes_the_folder_alone(batchgen: Command, run: Callable[..., Any]) -> None:
    result = run("-q")
    assert (result.stdout, result.stderr) == (f"{batchgen.folder / 'out'}\n", "")


def test_an_engine_that_fails_keeps_what_is_done(run: Callable[..., Any], runner: Runner) -> None:
    runner.error = EngineFailed("The engine ended.")
    result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: The engine ended." in result.stderr
    runner.error = None
    assert run().exit_code == 0


def test_an_engine_that_cannot_be_had_leaves_no_folder(
    batchgen: Command, run: Callable[..., Any], runner: Runner
) -> None:
    runner.error = InvalidParameter("There is no cuda:7.")
    assert run().exit_code == 2
    assert not (batchgen.folder / "out").exists()


def test_a_wrong_flag_later_keeps_what_was_done(
    batchgen: Command, run: Callable[..., Any], runner: Runner
) -> None:
    runner.interrupted = True
    run()
    runner.error = InvalidParameter("There is no cuda:7.")
    assert run("--device", "cuda:7").exit_code == 2
    runner.error, runner.interrupted = None, False
    assert run().exit_code == 0
    assert verify_dataset(batchgen.folder / "out") == []


def test_the_log_is_in_the_folder(batchgen: Command, run: Callable[..., Any]) -> None:
    result = run()
    assert "a line of the log" not in result.output
    log = batchgen.folder / "out" / ".batchgen" / "run.log"
    assert "a line of the log" in log.read_text()


def test_logging_is_as_it_was_afterwards(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    with log_file(tmp_path, verbose=False):
        assert root.handlers != before[0]
    assert (root.handlers, root.level) == before
