"""Parts: one Parquet file for the finished rows of one shard, and checkpoints of the same form.

    rows ──► table, sorted by row ──► .tmp file ──► re-opened and compared ──► SHA-256 ──► key

A part counts once a SQL row names its key and its SHA-256; nothing here decides that.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchgen.errors import Corrupt, InvalidParameter
from batchgen.io.finish_reasons import UNCOUNTED, FinishReasons
from batchgen.io.folders import sha256_of
from batchgen.io.kv_totals import UNMEASURED, KVTotals
from batchgen.io.numerics import Numerics, decode_numerics, encode_numerics
from batchgen.io.part_files import JOB_ID
from batchgen.io.results import from_table, to_table
from batchgen.io.rows import ResultRow
from batchgen.io.schema import PARQUET_OPTIONS, SCHEMA, SCHEMA_VERSION
from batchgen.io.storage import Storage

METADATA_PREFIX = "batchgen."
OPTIONAL = {"kv", "numerics"}  # of a footer: newer than the first parts


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInfo:
    """What SQL records of a part: where it lies, what it holds, and its sum."""

    path: str  # storage key
    n_rows: int
    n_ok: int
    n_err: int
    bytes: int
    sha256: str  # of the file as it is on disk
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    kv: KVTotals = UNMEASURED
    finish_reasons: FinishReasons = UNCOUNTED


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFooter:
    """Who computed a part and of what, kept inside the file so that SQL could be rebuilt."""

    job: str  # public id
    shard: int  # sequence number within the job
    epoch: int  # fencing epoch of the lease
    pos_start: int
    pos_end: int  # exclusive
    input_sha256: str
    model: str
    model_sha256: str
    kv: KVTotals = UNMEASURED  # of the rows in the part
    numerics: tuple[Numerics, ...] = ()  # of the engines that computed them


def part_key(job: str, shard_seq: int, epoch: int, kind: Literal["part", "ckpt"] = "part") -> str:
    """Return a storage key that no other writer can choose: `parts/<job>/<seq>.e<epoch>.<uuid>`.

    Raises InvalidParameter where `job` is not a public id (32 hexadecimal digits), so that no
    caller's string can become a path.
    """
    if JOB_ID.fullmatch(job) is None:
        raise InvalidParameter(f"{job!r} is not a job id.")
    prefix = "ckpt-" if kind == "ckpt" else ""
    return f"parts/{job}/{prefix}{shard_seq}.e{epoch}.{uuid.uuid4().hex}.parquet"


def write_part(
    storage: Storage, key: str, rows: Sequence[ResultRow], footer: PartFooter
) -> PartInfo:
    """Write rows, in any order, as one part sorted by row, and return what SQL is to record.

    The file is read again before it gets its name. On return it is durable. Raises Corrupt where
    the bytes read are not the rows written, OSError where the disk refuses.
    """
    table = to_table(sorted(rows, key=lambda row: row.row))
    assert pc.count_distinct(table["row"]).as_py() == len(table), "a part names a row twice"
    with storage.write(key) as pending:
        pending.file.write(_encode(table, footer))
        pending.file.flush()
        _check_written(pending.path, table, key)
        size, sha256 = pending.path.stat().st_size, sha256_of(pending.path)
    return _info(table, footer, key=key, size=size, sha256=sha256)


def inspect_part(storage: Storage, key: str) -> tuple[PartInfo, pa.Table]:
    """Return what SQL would record of a part that lies there, and its rows; raise Corrupt."""
    footer = read_footer(storage, key)
    data = _read_bytes(storage, key)
    sha256 = hashlib.sha256(data).hexdigest()
    table = read_part(storage, key, sha256=sha256)
    return _info(table, footer, key=key, size=len(data), sha256=sha256), table


def read_part(storage: Storage, key: str, *, sha256: str | None = None) -> pa.Table:
    """Return a part as a table of `SCHEMA`, checked against its SHA-256 where one is given.

    What is decoded is what was summed: the file is read once. Raises Corrupt, naming the part,
    where it is missing, changed or not a part.
    """
    data = _read_bytes(storage, key)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise Corrupt(f"part {key} was changed: its SHA-256 is not the one recorded.")
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"part {key} cannot be read: {error}") from error
    if not table.schema.equals(SCHEMA):
        raise Corrupt(f"part {key} does not have the columns of schema {SCHEMA_VERSION}.")
    return table


def read_results(storage: Storage, key: str, *, sha256: str | None = None) -> list[ResultRow]:
    """Return the rows of a part or checkpoint, sorted by row; errors as in `read_part`."""
    return from_table(read_part(storage, key, sha256=sha256))


def read_footer(storage: Storage, key: str) -> PartFooter:
    """Return who wrote a part; raise Corrupt where the file does not say.

    KV totals and numerics alone may be missing: parts of earlier versions have none.
    """
    try:
        with storage.open(key) as file:
            metadata = pq.read_metadata(file).metadata or {}
        values = {
            field.name: metadata[f"{METADATA_PREFIX}{field.name}".encode()].decode()
            for field in fields(PartFooter)
            if field.name not in OPTIONAL
        }
        numbers = {name: int(values[name]) for name in ("shard", "epoch", "pos_start", "pos_end")}
        kv = KVTotals.decode(metadata.get(f"{METADATA_PREFIX}kv".encode(), b"").decode())
        numerics = _numerics(metadata)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise Corrupt(f"part {key} has no footer that can be read: {error}") from error
    return PartFooter(**{**values, **numbers}, kv=kv, numerics=numerics)


def numerics_of(table: pa.Table) -> tuple[Numerics, ...]:
    """Return how the rows of a part, as `read_part` returned it, were computed."""
    return _numerics(table.schema.metadata or {})


def count_tokens(table: pa.Table, kind: str) -> int:
    """Return the sum of one field of `usage` over the rows of a table that have one."""
    return int(pc.sum(pc.struct_field(table["usage"], kind)).as_py() or 0)


def count_finish_reasons(table: pa.Table) -> FinishReasons:
    """Return why the answers of a table ended; failed rows are not counted."""
    counted = {
        one["values"]: one["counts"] for one in table["finish_reason"].value_counts().to_pylist()
    }
    return FinishReasons(stop=counted.get("stop", 0), length=counted.get("length", 0))


def _info(table: pa.Table, footer: PartFooter, *, key: str, size: int, sha256: str) -> PartInfo:
    failed = len(table) - table["error"].null_count
    return PartInfo(
        path=key,
        n_rows=len(table),
        n_ok=len(table) - failed,
        n_err=failed,
        bytes=size,
        sha256=sha256,
        prompt_tokens=count_tokens(table, "prompt_tokens"),
        completion_tokens=count_tokens(table, "completion_tokens"),
        cached_tokens=count_tokens(table, "cached_tokens"),
        kv=footer.kv,
        finish_reasons=count_finish_reasons(table),
    )


def _numerics(metadata: Mapping[bytes, bytes]) -> tuple[Numerics, ...]:
    return decode_numerics(metadata.get(f"{METADATA_PREFIX}numerics".encode(), b"").decode())


def _metadata(footer: PartFooter) -> dict[str, str]:
    texts = {"kv": footer.kv.encode(), "numerics": encode_numerics(footer.numerics)}
    values = {"schema_version": SCHEMA_VERSION, **asdict(footer), **texts}
    return {f"{METADATA_PREFIX}{name}": str(value) for name, value in values.items()}


def _encode(table: pa.Table, footer: PartFooter) -> pa.Buffer:
    # In memory, for a shard is small, and a full disk then shows as one plain OSError.
    sink = pa.BufferOutputStream()
    schema = SCHEMA.with_metadata(_metadata(footer))
    with pq.ParquetWriter(sink, schema, **PARQUET_OPTIONS) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _check_written(path: Path, table: pa.Table, key: str) -> None:
    # Every page is decoded, so that each checksum is tried; identity is compared value by value.
    # Scores are left out: a NaN equals nothing.
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            written = file.read()
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"part {key} cannot be read after writing: {error}") from error
    identity = ["row", "custom_id"]
    if not written.select(identity).equals(table.select(identity)):
        raise Corrupt(f"part {key} does not hold the rows that were written.")


def _read_bytes(storage: Storage, key: str) -> bytes:
    try:
        with storage.open(key) as file:
            return file.read()
    except FileNotFoundError as error:
        raise Corrupt(f"part {key} is missing.") from error
