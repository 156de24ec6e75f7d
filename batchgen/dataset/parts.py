"""Parts: one Parquet file for the finished rows of one shard. Checkpoints have the same form.

    rows, sorted ──► row groups ──► .tmp file ──► re-opened and compared ──► SHA-256 ──► key

Rows are encoded, written and read one row group at a time, so memory holds one row group even if
answers are long. A part counts only once a SQL row names its key and SHA-256, which is
not done here.
"""

from __future__ import annotations

import hashlib
import heapq
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchgen.core.finish_reasons import UNCOUNTED, FinishReasons
from batchgen.core.kv_totals import UNMEASURED, KVTotals
from batchgen.core.numerics import Numerics, decode_numerics, encode_numerics
from batchgen.core.rows import ResultRow
from batchgen.dataset.arrow_schema import SCHEMA, SCHEMA_VERSION
from batchgen.dataset.parquet import row_groups, writing_parquet
from batchgen.dataset.part_files import JOB_ID
from batchgen.dataset.result_table import from_table, in_groups, to_table
from batchgen.errors import Corrupt, InvalidParameter
from batchgen.storage.durable_files import sha256_of
from batchgen.storage.storage import Storage, is_disk_trouble

GROUP_BYTES = 64_000_000  # of results in one row group, the most in memory at a time
CHUNK = 1 << 20  # bytes hashed at a time
METADATA_PREFIX = "batchgen."
OPTIONAL = {"kv", "numerics"}  # fields of a footer that the oldest parts do not have

by_row = attrgetter("row")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInfo:
    """The record of a part for SQL: its key, content and SHA-256."""

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
    """The origin of a part: job, shard, lease. The file holds it so that SQL can be rebuilt."""

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

    Raises InvalidParameter if `job` is not a public id (32 hexadecimal digits), so that no
    string of a caller can become a path.
    """
    if JOB_ID.fullmatch(job) is None:
        raise InvalidParameter(f"{job!r} is not a job id.")
    prefix = "ckpt-" if kind == "ckpt" else ""
    return f"parts/{job}/{prefix}{shard_seq}.e{epoch}.{uuid.uuid4().hex}.parquet"


def write_part(
    storage: Storage,
    key: str,
    rows: Sequence[ResultRow],
    footer: PartFooter,
    *,
    saved: Iterable[ResultRow] = (),
    group_bytes: int = GROUP_BYTES,
) -> PartInfo:
    """Write rows, in any order, as one part sorted by row, and return the record for SQL.

    `saved` are sorted rows of a checkpoint, which are read as a stream. The file is read again
    before it gets its name. It is durable on return. Raises Corrupt if the bytes read are not the
    rows written, OSError if the disk fails.
    """
    merged = heapq.merge(saved, sorted(rows, key=by_row), key=by_row)
    summary = _Summary()
    with storage.write(key) as pending:
        _encode(pending.file, in_groups(merged, group_bytes), footer, summary)
        assert all(one < following for one, following in pairwise(summary.rows)), (
            "a part names a row twice"
        )
        pending.file.flush()
        _check_written(pending.path, summary, key)
        size, sha256 = pending.path.stat().st_size, sha256_of(pending.path)
    return summary.info(footer, key=key, size=size, sha256=sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The content of an existing part file: its record for SQL, its footer and its rows."""

    info: PartInfo
    rows: list[int]
    # of its error rows
    codes: set[str]


def inspect_part(storage: Storage, key: str) -> Inspected:
    """Read an existing part file and return its content; raise Corrupt."""
    footer = read_footer(storage, key)
    with _opened(storage, key) as file:
        sha256 = _sum(file)
        size = file.tell()
    summary = _Summary()
    codes: set[str] = set()
    for table in read_part(storage, key, sha256=sha256):
        summary.add(table)
        codes.update(pc.struct_field(table["error"].drop_null(), "code").to_pylist())
    info = summary.info(footer, key=key, size=size, sha256=sha256)
    return Inspected(info=info, rows=summary.rows, codes=codes)


def read_part(storage: Storage, key: str, *, sha256: str | None = None) -> Iterator[pa.Table]:
    """Yield a part as tables of `SCHEMA`, one row group at a time.

    If `sha256` is given, it is compared before the first table. The checksum of each page is
    compared when the page is decoded. Raises Corrupt, with the name of the part, if it is missing,
    changed or not a part, and OSError if the disk cannot be read.
    """
    with _opened(storage, key) as file:
        if sha256 is not None and _sum(file) != sha256:
            raise Corrupt(f"part {key} was changed: its SHA-256 is not the one recorded.")
        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                if not parquet.schema_arrow.equals(SCHEMA):
                    raise Corrupt(
                        f"part {key} does not have the columns of schema {SCHEMA_VERSION}."
                    )
                yield from row_groups(parquet)
        except (pa.ArrowException, OSError) as error:
            if is_disk_trouble(error):
                raise
            raise Corrupt(f"part {key} cannot be read: {error}") from error


def read_results(storage: Storage, key: str, *, sha256: str | None = None) -> Iterator[ResultRow]:
    """Yield the rows of a part or checkpoint, sorted by row; errors as in `read_part`."""
    for table in read_part(storage, key, sha256=sha256):
        yield from from_table(table)


def read_footer(storage: Storage, key: str) -> PartFooter:
    """Return the footer of a part; raise Corrupt if the file has none.

    Only KV totals and numerics may be missing: parts of earlier versions have none.
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
    """Return the numerics of the part from which `read_part` yielded `table`."""
    return _numerics(table.schema.metadata or {})


def count_tokens(table: pa.Table, kind: str) -> int:
    """Return the sum of one field of `usage` over the rows of a table that have one."""
    return int(pc.sum(pc.struct_field(table["usage"], kind)).as_py() or 0)


def count_finish_reasons(table: pa.Table) -> FinishReasons:
    """Count the finish reasons of a table; failed rows are not counted."""
    counted = {
        one["values"]: one["counts"] for one in table["finish_reason"].value_counts().to_pylist()
    }
    return FinishReasons(stop=counted.get("stop", 0), length=counted.get("length", 0))


def _numerics(metadata: Mapping[bytes, bytes]) -> tuple[Numerics, ...]:
    return decode_numerics(metadata.get(f"{METADATA_PREFIX}numerics".encode(), b"").decode())


def _metadata(footer: PartFooter) -> dict[str, str]:
    texts = {"kv": footer.kv.encode(), "numerics": encode_numerics(footer.numerics)}
    values = {"schema_version": SCHEMA_VERSION, **asdict(footer), **texts}
    return {f"{METADATA_PREFIX}{name}": str(value) for name, value in values.items()}


@dataclass(slots=True)
class _Summary:
    """Collects the ids and sums of the rows that were written or read so far."""

    rows: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    finish_reasons: FinishReasons = UNCOUNTED

    def add(self, table: pa.Table) -> None:
        """Take one row group into account."""
        self.rows += table["row"].to_pylist()
        self.ids += table["custom_id"].to_pylist()
        self.failed += len(table) - table["error"].null_count
        self.prompt_tokens += count_tokens(table, "prompt_tokens")
        self.completion_tokens += count_tokens(table, "completion_tokens")
        self.cached_tokens += count_tokens(table, "cached_tokens")
        self.finish_reasons += count_finish_reasons(table)

    def info(self, footer: PartFooter, *, key: str, size: int, sha256: str) -> PartInfo:
        """Return the record for SQL of a file with these rows."""
        return PartInfo(
            path=key,
            n_rows=len(self.rows),
            n_ok=len(self.rows) - self.failed,
            n_err=self.failed,
            bytes=size,
            sha256=sha256,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
            kv=footer.kv,
            finish_reasons=self.finish_reasons,
        )


def _encode(
    file: BinaryIO,
    groups: Iterable[Sequence[ResultRow]],
    footer: PartFooter,
    summary: _Summary,
) -> None:
    with writing_parquet(file, SCHEMA.with_metadata(_metadata(footer))) as writer:
        for rows in groups:
            table = to_table(rows)
            writer.write_table(table, row_group_size=len(table))
            summary.add(table)


def _check_written(path: Path, summary: _Summary, key: str) -> None:
    # Decoding every page checks each checksum; ids are compared value by value. Scores are not
    # compared, because NaN does not equal itself.
    found = _Summary()
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for table in row_groups(file):
                found.add(table)
    except (pa.ArrowException, OSError) as error:
        if is_disk_trouble(error):
            raise
        raise Corrupt(f"part {key} cannot be read after writing: {error}") from error
    if found != summary:
        raise Corrupt(f"part {key} does not hold the rows that were written.")


def _opened(storage: Storage, key: str) -> BinaryIO:
    try:
        return storage.open(key)
    except FileNotFoundError as error:
        raise Corrupt(f"part {key} is missing.") from error


def _sum(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
