from __future__ import annotations

import pytest

from batchgen.core.rows import Choice, Generation, Usage
from batchgen_workers.engine_process import result_frames
from batchgen_workers.engine_process.frames import ROWS_PER_FRAME
from batchgen_workers.engine_process.result_frames import in_result_frames


def answer(key: int, *, logprobs: int = 0) -> Generation:
    choice = Choice(index=0, text="a", finish_reason="stop", logprobs="x" * logprobs)
    return Generation(key=key, choices=[choice], usage=Usage(prompt_tokens=1, completion_tokens=1))


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_frames, "FRAME_BYTES", 1000)


def test_short_answers_are_cut_by_rows() -> None:
    answers = [answer(key) for key in range(ROWS_PER_FRAME + 3)]
    pieces = list(in_result_frames(answers))
    assert [len(piece) for piece in pieces] == [ROWS_PER_FRAME, 3]
    assert [one for piece in pieces for one in piece] == answers


def test_long_answers_are_cut_by_bytes() -> None:
    answers = [answer(key, logprobs=400) for key in range(5)]
    pieces = list(in_result_frames(answers))
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert [one for piece in pieces for one in piece] == answers


def test_an_answer_too_long_for_any_frame_is_the_error_of_its_row_alone() -> None:
    answers = [answer(0), answer(1, logprobs=2000), answer(2)]
    (piece,) = in_result_frames(answers)
    assert piece[0] == answers[0] and piece[2] == answers[2]
    assert piece[1].error is not None and piece[1].error.code == "result_too_large"
    assert piece[1].choices == [] and piece[1].usage is None


def test_nothing_makes_no_frame() -> None:
    assert list(in_result_frames([])) == []
