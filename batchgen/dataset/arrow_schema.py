"""The columns of the dataset, and how they are written to Parquet."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION: Final = 1

# Reading a Parquet list names its items "element"; naming them so here makes a round trip exact.
_TOKENS = pa.list_(pa.field("element", pa.int32()))

CHOICE: Final = pa.struct(
    [
        ("index", pa.int32()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("score", pa.float64()),
        ("tokens", _TOKENS),
        ("logprobs", pa.string()),
    ]
)
USAGE: Final = pa.struct(
    [
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
    ]
)
ERROR: Final = pa.struct([("code", pa.string()), ("message", pa.string()), ("param", pa.string())])

#: Schema 1, the same for parts, for `data/` and for `errors/`.
SCHEMA: Final = pa.schema(
    [
        ("row", pa.int64()),  # 0-based record of the input: the identity of a result
        ("custom_id", pa.string()),
        ("response", pa.string()),  # text of the first choice; null on an error row
        ("choices", pa.list_(pa.field("element", CHOICE))),  # best first; empty on an error row
        ("finish_reason", pa.string()),  # of the first choice
        ("model", pa.string()),
        ("usage", USAGE),
        ("error", ERROR),  # null on success
        ("request_id", pa.string()),
        ("attempt", pa.int32()),
        ("seed", pa.int64()),
        ("created_at", pa.timestamp("us", "UTC")),
        ("latency_ms", pa.int64()),
        ("extra", pa.string()),  # JSON text of the input line's other fields
    ]
)

#: Keywords of `pyarrow.parquet.ParquetWriter` for every file that batchgen writes.
PARQUET_OPTIONS: Final[dict[str, Any]] = {
    "compression": "zstd",
    "compression_level": 3,
    # Answers hardly repeat: a dictionary of them would only be given up half-way.
    "use_dictionary": ["model", "finish_reason"],
    "write_page_index": True,
    "write_page_checksum": True,
    # Page borders follow the content, so that a second upload sends only what changed.
    "use_content_defined_chunking": True,
    "sorting_columns": [pq.SortingColumn(0)],  # by `row`
}
