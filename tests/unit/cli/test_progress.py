from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.states import JobState
from batchgen.service import Rates
from batchgen_cli import progress
from batchgen_cli.output import Format, Output
from tests.support.views import PUBLIC_ID, a_view

RATES = Rates(rows_per_second=2.0, tokens_per_second=512.3, kv_utilisation=0.43, eta_seconds=80.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of one hand."""
    hand = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: hand[0])
    return hand


def test_a_sentence_tells_all_there_is() -> None:
    assert progress.sentence(a_view(done=40, failed=3), RATES) == (
        "running    40/100 rows, 3 failed, 512 tok/s, KV 43 %, ETA 1m 20s"
    )


def test_answers_that_were_cut_are_told() -> None:
    view = a_view(done=100, cut=99, state=JobState.FINALIZING)
    assert progress.sentence(view, RATES) == (
        "finalizing 100/100 rows, 0 failed, 99 cut at max_tokens"
    )


def test_a_job_that_waits_says_for_what() -> None:
    assert "batchgen up" in progress.sentence(a_view(workers=()), Rates())


def test_an_ended_job_says_how_long_it_took() -> None:
    done: dict[str, Any] = {"state": JobState.COMPLETED, "ended_at": 1090.0, "dataset": Path("/d")}
    view = a_view(done=100, tokens=2000, **done)
    assert progress.sentence(view, Rates()) == (
        "completed  100/100 rows, 0 failed, 2,000 tokens, took 1m 30s"
    )


def test_lines_come_every_ten_seconds_and_with_each_state(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    display = progress.PlainDisplay(Output())
    for later, view in [
        (0, a_view(done=1)),
        (5, a_view(done=2)),
        (5, a_view(done=3)),
        (1, a_view(done=4, state=JobState.FINALIZING)),
    ]:
        clock[0] += later
        display.update(view, RATES)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[1] for line in err.splitlines()] == ["1/100", "3/100", "4/100"]


def test_events_are_json_lines(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    display = progress.EventDisplay(Output(format=Format.JSON))
    for later in (0, 0.5, 0.5):
        clock[0] += later
        display.update(a_view(done=40), RATES)
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert len(events) == 2
    assert events[0]["id"] == PUBLIC_ID
    assert events[0]["rows"]["done"] == 40
    assert (events[0]["tokens_per_second"], events[0]["eta_seconds"]) == (512.3, 80.0)


@pytest.mark.parametrize(
    ("form", "terminal", "display"),
    [
        (Format.JSON, True, progress.EventDisplay),
        (Format.QUIET, True, progress.SilentDisplay),
        (Format.HUMAN, False, progress.PlainDisplay),
        (Format.HUMAN, True, progress.LiveDisplay),
    ],
)
def test_the_display_fits_the_reader(
    monkeypatch: pytest.MonkeyPatch, form: Format, terminal: bool, display: type
) -> None:
    monkeypatch.setattr(progress, "is_terminal", lambda _: terminal)
    assert type(progress.choose_display(Output(format=form))) is display


def test_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with progress.LiveDisplay() as display:
        display.update(a_view(done=40), RATES)
    out, err = capsys.readouterr()
    assert out == ""
    assert "40/100 rows" in err


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.SilentDisplay() as display:
        display.update(a_view(), RATES)
    assert capsys.readouterr() == ("", "")
