from __future__ import annotations

import io
import json

import pytest

from batchgen.core.row_lengths import LengthSample, RowLengths
from batchgen.core.rows import InputRow
from batchgen.inputs.record_file import RecordReader
from batchgen.inputs.survey import Survey
from batchgen.requests.lines import LineParser


def row(**line: object) -> InputRow:
    parsed = LineParser({}).parse(json.dumps(line).encode(), 0)
    assert isinstance(parsed, InputRow)
    return parsed


def lengths(*rows: InputRow) -> RowLengths:
    sample = LengthSample()
    for each in rows:
        sample.add(each)
    return sample.lengths


def test_of_nothing_is_nothing() -> None:
    assert lengths() == RowLengths()


def test_prompts_count_whatever_their_form() -> None:
    chat = row(messages=[{"role": "system", "content": "x" * 8}, {"role": "user", "content": "yy"}])
    assert lengths(chat, row(prompt="z" * 30)).prompt_tokens == (10 + 30) / 2 / 4


def test_bounds_count_for_every_answer_of_a_row() -> None:
    assert lengths(row(prompt="a")).answer_tokens is None
    assert lengths(row(prompt="a"), row(prompt="a", max_tokens=10)).answer_tokens == 10
    many = row(prompt="a", max_tokens=10, n=3)
    beams = row(prompt="a", max_tokens=20, num_beams=4, n=2)
    assert lengths(many, beams).answer_tokens == (30 + 80) / 2


def test_a_survey_samples_every_part_of_an_input() -> None:
    lines = [{"prompt": "a" * 40}] * 20_000 + [{"prompt": "b" * 80, "max_tokens": 7}] * 20_000
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    survey = Survey(LineParser({}), io.BytesIO())
    survey.read(RecordReader(io.BytesIO(data), index=io.BytesIO()))
    # the second half has more chunks: its lines are longer
    assert survey.lengths.prompt_tokens == pytest.approx(17, abs=1.5)
    assert survey.lengths.answer_tokens == 7


def test_defaults_bound_rows_that_do_not() -> None:
    survey = Survey(LineParser({"max_tokens": 5}), io.BytesIO())
    survey.read(RecordReader(io.BytesIO(b'{"prompt": "x"}\nnonsense\n'), index=io.BytesIO()))
    assert survey.lengths == RowLengths(prompt_tokens=0.25, answer_tokens=5)
