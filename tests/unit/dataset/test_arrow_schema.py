from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchgen.dataset.arrow_schema import PARQUET_OPTIONS, SCHEMA, SCHEMA_VERSION
from batchgen.dataset.result_table import to_table
from tests.support.result_rows import ok_row

COLUMNS = {
    "row": "int64",
    "custom_id": "string",
    "response": "string",
    "choices": "list<element: struct<index: int32, text: string, finish_reason: string, "
    "score: double, tokens: list<element: int32>, logprobs: string>>",
    "finish_reason": "string",
    "model": "string",
    "usage": "struct<prompt_tokens: int32, completion_tokens: int32, cached_tokens: int32>",
    "error": "struct<code: string, message: string, param: string>",
    "request_id": "string",
    "attempt": "int32",
    "seed": "int64",
    "created_at": "timestamp[us, tz=UTC]",
    "latency_ms": "int64",
    "extra": "string",
}

# The schema of each version, in digits of its SHA-256.
PUBLISHED = {1: "b8887a4592646da8"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(to_table([ok_row(row, "x" * 50) for row in range(500)]), path, **PARQUET_OPTIONS)
    return path


def test_schema_one_has_these_columns_and_no_others() -> None:
    assert SCHEMA_VERSION == 1
    assert {field.name: str(field.type) for field in SCHEMA} == COLUMNS


def test_a_changed_schema_has_a_higher_version() -> None:
    """Datasets of a version are read for ever: add a version here, never change one."""
    digest = sha256(
        repr([(each.name, str(each.type), each.nullable) for each in SCHEMA]).encode()
    ).hexdigest()
    assert digest[:16] == PUBLISHED[SCHEMA_VERSION]


def test_parquet_gives_back_the_very_schema(file: Path) -> None:
    assert pq.read_schema(file).equals(SCHEMA)


def test_only_model_and_finish_reason_have_a_dictionary(file: Path) -> None:
    group = pq.read_metadata(file).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    with_dictionary = {column.path_in_schema for column in columns if column.has_dictionary_page}
    assert with_dictionary == {"model", "finish_reason"}
    assert {column.compression for column in columns} == {"ZSTD"}
    assert all(column.has_offset_index and column.has_column_index for column in columns)
    assert group.sorting_columns[0].column_index == 0


def test_a_flipped_byte_in_a_page_is_noticed(file: Path) -> None:
    column = pq.read_metadata(file).row_group(0).column(0)
    data = bytearray(file.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(pa.BufferReader(bytes(data)), page_checksum_verification=True).read()


def test_pages_are_cut_by_content_so_that_an_inserted_row_moves_few_of_them(tmp_path: Path) -> None:
    rows = [ok_row(row, f"{row:06d}" * 40) for row in range(20_000)]

    def pages(table: pa.Table) -> set[int]:
        path = tmp_path / "pages.parquet"
        pq.write_table(table, path, **PARQUET_OPTIONS)
        with pq.ParquetFile(path) as read:
            column = read.metadata.row_group(0).column(SCHEMA.get_field_index("response"))
            start, size = column.data_page_offset, column.total_compressed_size
        data = path.read_bytes()[start : start + size]
        return {hash(data[at : at + 4096]) for at in _zstd_frames(data)}

    before = pages(to_table(rows))
    after = pages(to_table(rows[1:]))  # without the first row everything else moves up
    assert len(before) > 3
    assert len(before & after) >= len(before) - 2


def _zstd_frames(data: bytes) -> list[int]:
    magic = b"\x28\xb5\x2f\xfd"
    starts, at = [], data.find(magic)
    while at >= 0:
        starts.append(at)
        at = data.find(magic, at + 1)
    return starts
