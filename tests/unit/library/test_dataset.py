from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars
import pytest

import batchgen
from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.errors import Corrupt
from tests.support.result_rows import mixed_rows, put_dataset

N_ROWS = 3_000  # more than iteration holds at a time
FAILED = list(range(0, N_ROWS, 3))
ANSWERED = [row for row in range(N_ROWS) if row % 3]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> batchgen.Dataset:
    home = tmp_path_factory.mktemp("home")
    folder, _ = put_dataset(home, [mixed_rows(0, N_ROWS)], n_rows=N_ROWS)
    return batchgen.Dataset(str(folder))


def test_answers_come_in_order_in_every_form(dataset: batchgen.Dataset) -> None:
    table = dataset.to_arrow()
    assert table.schema.equals(SCHEMA)
    assert table["row"].to_pylist() == ANSWERED
    assert list(dataset) == table.to_pylist()
    assert len(dataset) == len(ANSWERED)
    frame, polar = dataset.to_pandas(), dataset.to_polars()
    assert isinstance(frame, pd.DataFrame) and isinstance(polar, polars.DataFrame)
    assert list(frame["response"]) == polar["response"].to_list() == table["response"].to_pylist()


def test_failures_are_apart(dataset: batchgen.Dataset) -> None:
    errors = dataset.errors
    assert errors.schema.equals(SCHEMA)
    assert errors["row"].to_pylist() == FAILED
    assert errors["error"][0]["code"].as_py() == "context_length_exceeded"


def test_the_report_counts_both(dataset: batchgen.Dataset) -> None:
    report = dataset.report
    assert (report.rows, report.ok, report.errors) == (N_ROWS, len(ANSWERED), len(FAILED))
    assert report.finish_reasons.stop == len(ANSWERED)
    assert report.completion_tokens == 2 * len(ANSWERED)


def test_it_is_shown_by_its_counts(dataset: batchgen.Dataset) -> None:
    counts = "3000 rows, 2000 answered, 1000 failed, model tiny"
    assert repr(dataset) == f"<Dataset '{dataset.path}': {counts}>"


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="not a finished dataset"):
        batchgen.Dataset(tmp_path)
