"""`batchgen.run` as programs call it: everything is real but the model."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

import batchgen
from batchgen.dataset.verify import verify_dataset
from batchgen.errors import (
    BadLines,
    EmptyInput,
    InvalidParameter,
    ModelError,
    OutputConflict,
    UnknownModel,
)
from batchgen.service import JobView
from batchgen.settings import EngineSettings, Settings
from batchgen_workers import testing
from batchgen_workers.service import local
from tests.support.holding import Hold
from tests.support.homes import pin_model

SECRET = "the heron"
ROWS = [{"id": f"q{row}", "prompt": f"{SECRET} counts to {row}"} for row in range(100)]
OPENAI = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/completions",
    "body": {"model": "gpt-9", "prompt": "a"},
}


class Run(Protocol):
    def __call__(self, prompts: Any = ROWS, /, **asked: Any) -> batchgen.Dataset: ...


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a model, which is the user's."""
    home = tmp_path / "home"
    pin_model(home)
    monkeypatch.setenv("BATCHGEN_HOME", str(home))
    monkeypatch.setenv("BATCHGEN_CHECKPOINT_INTERVAL", "0.1")
    monkeypatch.setattr(local, "run_local", partial(local.run_local, factory=testing.FAST))
    return home


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(home: Path, out: Path) -> Run:
    """Answer prompts greedily in one folder."""
    return lambda prompts=ROWS, /, **asked: batchgen.run(
        prompts, out, **{"model": "tiny", "temperature": 0, **asked}
    )


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be computed."""
    monkeypatch.setattr(local, "run_local", None)


def answers(dataset: batchgen.Dataset) -> list[str]:
    return [row["response"] for row in dataset]


def test_prompts_become_a_dataset(run: Run, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[JobView] = []
    loggers = logging.root.handlers[:], logging.root.level
    dataset = run((row for row in ROWS), max_tokens=3, progress=seen.append, name="night")
    assert answers(dataset) == [
        testing.answer_to(row["prompt"], seed=None, tokens=3) for row in ROWS
    ]
    assert [row["custom_id"] for row in dataset] == [row["id"] for row in ROWS]
    assert (dataset.path, dataset.report.ok, dataset.errors.num_rows) == (out, len(ROWS), 0)
    assert verify_dataset(out) == []
    assert (seen[0].rows_total, seen[-1].job.name) == (len(ROWS), "night")
    assert SECRET not in repr(dataset)
    assert capfd.readouterr() == ("", "")
    assert loggers == (logging.root.handlers, logging.root.level)
    log = (out / ".batchgen" / "run.log").read_text()
    assert "dead leases released" in log and SECRET not in log


def test_a_finished_folder_is_returned_and_another_run_refused(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run()
    monkeypatch.setattr(local, "run_local", None)  # nothing may be computed
    assert list(run()) == list(first)
    for asked in ({"temperature": 1}, {"columns": ["topic"]}):
        with pytest.raises(OutputConflict):
            run(**asked)
    with pytest.raises(OutputConflict):
        run(ROWS[1:])
    assert verify_dataset(out) == []


def test_interrupted_it_goes_on(run: Run, out: Path, hold: Hold) -> None:
    hold.after(40)

    def interrupt(view: JobView) -> None:
        if view.rows_done >= 40:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt)
    with pytest.raises(OutputConflict):
        run(ROWS[:50])
    hold.release()
    dataset = run()
    assert answers(dataset) == [testing.answer_to(row["prompt"], seed=None) for row in ROWS]
    attempts = dataset.to_arrow()["attempt"].to_pylist()
    assert attempts.count(1) >= 40 and set(attempts) == {1, 2}


def test_bad_rows_refuse_the_prompts_or_become_errors(run: Run, out: Path) -> None:
    rows = [*ROWS[:3], {"prompt": "bad", "max_tokens": -1}]
    with pytest.raises(BadLines, match="line 4"):
        run(rows)
    assert not out.exists()
    dataset = run(rows, on_invalid="row-error")
    assert (len(dataset), dataset.report.rows) == (3, 4)
    assert dataset.errors["row"].to_pylist() == [3]


def test_rows_of_another_model_are_told(run: Run) -> None:
    with pytest.warns(UserWarning, match="gpt") as told:
        run([OPENAI])
    assert told[0].filename == __file__


def test_the_engine_and_the_home_can_be_given(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATCHGEN_HOME")
    monkeypatch.setattr(local, "run_local", _tell_block_size)
    with pytest.raises(ModelError, match="32 seen"):
        run(home=str(home), engine={"block_size": 32})
    with pytest.raises(ModelError, match="64 seen"):
        run(settings=Settings(home=home, engine=EngineSettings(block_size=64)))


def _tell_block_size(settings: Settings, job: str, **_: Any) -> None:
    raise ModelError(f"{settings.engine.block_size} seen")


@pytest.mark.parametrize(
    ("asked", "error", "reason"),
    [
        ({"model": "none"}, UnknownModel, "none"),
        ({"temprature": 0}, InvalidParameter, "Did you mean 'temperature'"),
        ({"top_p": object()}, InvalidParameter, "'top_p' cannot be written as JSON"),
        ({"on_invalid": "skip"}, InvalidParameter, "'refuse' or 'row-error'"),
        ({"engine": {"devise": "cpu"}}, InvalidParameter, "Did you mean 'device'"),
        ({"engine": {"block_size": 0}}, InvalidParameter, "argument of the call"),
        ({"settings": Settings(), "engine": {}}, InvalidParameter, "either settings"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_done_is_refused_before_anything_is_made(
    run: Run, out: Path, no_engine: None, asked: dict[str, Any], error: type, reason: str
) -> None:
    with pytest.raises(error, match=reason):
        run(**asked)
    assert not out.exists()


def test_prompts_that_break_off_leave_nothing(run: Run, out: Path, no_engine: None) -> None:
    def broken() -> Iterator[dict[str, str]]:
        yield ROWS[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(broken())
    with pytest.raises(EmptyInput):
        run([])
    assert not out.exists()
