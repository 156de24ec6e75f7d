"""A finished dataset in the four readers that people use, each without help from batchgen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.dataset as arrow_dataset
import pytest

from batchgen.core.rows import Choice, ResultRow
from batchgen.dataset.arrow_schema import SCHEMA
from batchgen.dataset.dataset import Limits
from batchgen.dataset.export import export_dataset
from tests.support.result_rows import CREATED_AT, error_row, ok_row, put_dataset

LIMITS = Limits(row_group_rows=4, file_rows=8)  # four files of answers, two of errors
N_ROWS = 42
OK = [row for row in range(N_ROWS) if row % 4]
FAILED = list(range(0, N_ROWS, 4))
COLUMNS = SCHEMA.names


def rows_of(n_rows: int) -> list[ResultRow]:
    choices = [
        Choice(index=0, text="größer 🙂\n", finish_reason="length", score=-0.5, tokens=[7, 8]),
        Choice(index=1, text="second", finish_reason="stop"),
    ]
    rows = [ok_row(row) if row % 4 else error_row(row) for row in range(n_rows)]
    rows[1] = ok_row(1, choices=choices, extra='{"topic":"sums"}')
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset as a user holds it: exported, in a folder whose name says `test` and `eval`."""
    folder, _ = put_dataset(tmp_path / "home", [rows_of(N_ROWS)], n_rows=N_ROWS, limits=LIMITS)
    out = tmp_path / "my-eval-run" / "test data"
    export_dataset(folder, out)
    return out


@pytest.fixture
def only_errors(tmp_path: Path) -> Path:
    folder, _ = put_dataset(tmp_path / "home", [[error_row(0), error_row(1)]], n_rows=2)
    return folder


@pytest.fixture
def no_errors(tmp_path: Path) -> Path:
    folder, _ = put_dataset(tmp_path / "home", [[ok_row(0), ok_row(1)]], n_rows=2)
    return folder


# ---- pyarrow ----


def test_pyarrow(folder: Path) -> None:
    table = arrow_dataset.dataset(folder / "data").to_table()
    assert table.column_names == COLUMNS
    assert table["row"].to_pylist() == OK
    first = table.slice(0, 1).to_pylist()[0]
    assert first["response"] == "größer 🙂\n"
    assert [choice["text"] for choice in first["choices"]] == ["größer 🙂\n", "second"]
    assert first["error"] is None
    failed = arrow_dataset.dataset(folder / "errors").to_table()
    assert failed["row"].to_pylist() == FAILED
    assert failed.schema.equals(table.schema)


def test_pyarrow_without_answers(only_errors: Path) -> None:
    table = arrow_dataset.dataset(only_errors / "data").to_table()
    assert (len(table), table.column_names) == (0, COLUMNS)


# ---- DuckDB ----


def duck(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def test_duckdb(folder: Path) -> None:
    data = f"'{folder}/data/*.parquet'"
    described = duck(f"DESCRIBE SELECT * FROM {data}")  # noqa: S608 - the path is ours
    assert [column[0] for column in described] == COLUMNS
    assert [row for (row,) in duck(f"SELECT row FROM {data}")] == OK  # noqa: S608
    (answer,) = duck(
        "SELECT response, choices[2].text, usage.prompt_tokens, extra->>'topic', "  # noqa: S608
        f"epoch_us(created_at), error IS NULL FROM {data} WHERE row = 1"
    )
    assert answer == ("größer 🙂\n", "second", 3, "sums", CREATED_AT + 1, True)
    errors = f"'{folder}/errors/*.parquet'"
    failed = duck(f"SELECT row, error.code, response FROM {errors}")  # noqa: S608
    assert failed == [(row, "context_length_exceeded", None) for row in FAILED]


def test_duckdb_reads_the_schema_metadata(folder: Path) -> None:
    found = duck(
        "SELECT DISTINCT decode(key), decode(value) "  # noqa: S608 - the path is ours
        f"FROM parquet_kv_metadata('{folder}/data/*.parquet')"
    )
    assert ("batchgen.schema_version", "1") in found
    assert ("batchgen.model", "tiny") in found


def test_duckdb_without_answers(only_errors: Path) -> None:
    assert duck(f"SELECT count(*) FROM '{only_errors}/data/*.parquet'") == [(0,)]  # noqa: S608


# ---- polars ----


def test_polars(folder: Path) -> None:
    frame = polars.scan_parquet(folder / "data" / "*.parquet").collect()
    assert frame.columns == COLUMNS
    assert frame["row"].to_list() == OK
    first = frame.row(0, named=True)
    assert first["response"] == "größer 🙂\n"
    assert first["choices"][0]["tokens"] == [7, 8]
    assert first["created_at"].microsecond == (CREATED_AT + 1) % 1_000_000
    failed = polars.read_parquet(folder / "errors" / "*.parquet")
    assert failed["row"].to_list() == FAILED
    assert failed["error"].struct.field("code").unique().to_list() == ["context_length_exceeded"]


def test_polars_without_answers(only_errors: Path) -> None:
    assert polars.read_parquet(only_errors / "data" / "*.parquet").shape == (0, len(COLUMNS))


# ---- Hugging Face datasets ----


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The `datasets` library, offline, with its cache in this test's folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "hf" / "modules"))
    datasets.disable_progress_bars()
    return datasets


def load(library: Any, folder: Path, config: str | None = None, **options: Any) -> Any:
    return library.load_dataset(str(folder), config, **{"split": "train", **options})


def test_hugging_face(folder: Path, hugging_face: Any) -> None:
    rows = load(hugging_face, folder)
    assert rows.column_names == COLUMNS
    assert rows["row"][:] == OK
    assert rows[0]["response"] == "größer 🙂\n"
    assert [choice["text"] for choice in rows[0]["choices"]] == ["größer 🙂\n", "second"]
    assert rows[0]["error"] is None
    assert None not in rows["response"][:]


def test_hugging_face_has_the_errors_in_a_config_of_their_own(
    folder: Path, hugging_face: Any
) -> None:
    assert hugging_face.get_dataset_config_names(str(folder)) == ["default", "errors"]
    failed = load(hugging_face, folder, "errors", split="errors")
    assert failed["row"][:] == FAILED
    assert failed[0]["error"]["code"] == "context_length_exceeded"
    assert failed[0]["response"] is None


def test_hugging_face_streams(folder: Path, hugging_face: Any) -> None:
    assert [row["row"] for row in load(hugging_face, folder, streaming=True)] == OK


def test_hugging_face_without_errors_has_no_errors_config(
    no_errors: Path, hugging_face: Any
) -> None:
    assert hugging_face.get_dataset_config_names(str(no_errors)) == ["default"]
    assert load(hugging_face, no_errors)["row"][:] == [0, 1]


@pytest.mark.parametrize("config", [None, "errors"])
def test_hugging_face_never_takes_a_failure_for_training_data(
    only_errors: Path, hugging_face: Any, config: str | None
) -> None:
    with pytest.raises(ValueError, match=r"Unknown split .?train"):
        load(hugging_face, only_errors, config)
    failed = load(hugging_face, only_errors, config, split="errors")
    assert failed["row"][:] == [0, 1]
    assert list(hugging_face.load_dataset(str(only_errors))) == ["errors"]
