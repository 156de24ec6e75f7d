from __future__ import annotations

import errno
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchgen.core.kv_totals import UNMEASURED, KVTotals
from batchgen.core.numerics import Numerics
from batchgen.core.rows import ResultRow
from batchgen.dataset import parts
from batchgen.dataset.parts import (
    PartFooter,
    inspect_part,
    numerics_of,
    part_key,
    read_footer,
    read_part,
    read_results,
    write_part,
)
from batchgen.dataset.result_table import to_table
from batchgen.errors import Corrupt, InvalidParameter
from batchgen.storage.storage import LocalStorage
from tests.support.disk_events import recorded_disk, small_disk
from tests.support.permissions import writable
from tests.support.result_rows import JOB, error_row, mixed_rows, ok_row

FOOTER = PartFooter(
    job=JOB,
    shard=3,
    epoch=2,
    pos_start=0,
    pos_end=6,
    input_sha256="b" * 64,
    model="tiny",
    model_sha256="a" * 64,
)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def test_keys_are_unique_and_say_shard_and_epoch() -> None:
    one, two = part_key(JOB, 7, 2), part_key(JOB, 7, 2)
    assert one != two
    assert re.fullmatch(rf"parts/{JOB}/7\.e2\.[0-9a-f]{{32}}\.parquet", one)
    assert part_key(JOB, 7, 2, "ckpt").startswith(f"parts/{JOB}/ckpt-7.e2.")


@pytest.mark.parametrize("job", ["", "..", "../../etc", JOB.upper(), JOB + "\n", JOB + "/x"])
def test_a_string_that_is_no_job_id_cannot_become_a_path(job: str) -> None:
    with pytest.raises(InvalidParameter, match="not a job id"):
        part_key(job, 0, 1)


def test_a_part_is_described_by_what_is_on_disk(storage: LocalStorage) -> None:
    key = part_key(JOB, 3, 2)
    info = write_part(storage, key, mixed_rows(0, 6), FOOTER)
    data = storage.path(key).read_bytes()
    assert (info.path, info.n_rows, info.n_ok, info.n_err) == (key, 6, 4, 2)
    assert (info.prompt_tokens, info.completion_tokens) == (12, 8)
    assert info.bytes == len(data)
    assert info.sha256 == hashlib.sha256(data).hexdigest()


def test_rows_come_back_sorted_by_row(storage: LocalStorage) -> None:
    rows = mixed_rows(0, 6)
    key = part_key(JOB, 3, 2)
    info = write_part(storage, key, [rows[at] for at in (5, 0, 3, 1, 4, 2)], FOOTER)
    assert list(read_results(storage, key, sha256=info.sha256)) == rows
    assert [row.row for row in read_results(storage, key)] == [0, 1, 2, 3, 4, 5]


def test_the_footer_says_who_wrote_it(storage: LocalStorage) -> None:
    key = part_key(JOB, 3, 2)
    write_part(storage, key, [ok_row(0)], FOOTER)
    assert read_footer(storage, key) == FOOTER
    assert read_footer(storage, key).kv == UNMEASURED
    metadata = pq.read_metadata(storage.path(key)).metadata
    assert metadata[b"batchgen.schema_version"] == b"1"


def test_the_footer_keeps_what_the_rows_did_to_the_pool(storage: LocalStorage) -> None:
    key = part_key(JOB, 3, 2, "ckpt")
    kv = KVTotals(rows=4, preemptions=3, copies=9, utilisation=0.1 + 0.2, sharing_saving=1 / 3)
    info = write_part(storage, key, mixed_rows(0, 6), replace(FOOTER, kv=kv))
    assert (info.kv, info.cached_tokens) == (kv, 4)
    assert read_footer(storage, key) == replace(FOOTER, kv=kv)


def test_the_footer_keeps_how_the_rows_were_computed(storage: LocalStorage) -> None:
    key = part_key(JOB, 3, 2)
    numerics = (
        Numerics(device="cpu", dtype="float32", quantize="int8"),
        Numerics(device="cuda", dtype="bfloat16"),
    )
    write_part(storage, key, mixed_rows(0, 6), replace(FOOTER, numerics=numerics))
    assert read_footer(storage, key) == replace(FOOTER, numerics=numerics)
    assert numerics_of(next(read_part(storage, key))) == numerics


@pytest.mark.parametrize("kv", [None, "", "{", '{"rows": "many"}', "[]", "nonsense"])
def test_a_footer_without_totals_is_one_of_rows_nobody_measured(
    storage: LocalStorage, kv: str | None
) -> None:
    key = part_key(JOB, 3, 2)
    write_part(storage, key, [ok_row(0)], FOOTER)
    table = next(read_part(storage, key))
    metadata = dict(pq.read_schema(storage.path(key)).metadata)
    del metadata[b"batchgen.kv"], metadata[b"batchgen.numerics"]  # as the first parts were
    if kv is not None:
        metadata[b"batchgen.kv"] = kv.encode()
    pq.write_table(table.replace_schema_metadata(metadata), writable(storage.path(key)))
    assert read_footer(storage, key) == FOOTER
    assert list(read_results(storage, key)) == [ok_row(0)]


def test_a_checkpoint_may_be_empty(storage: LocalStorage) -> None:
    key = part_key(JOB, 3, 2, "ckpt")
    assert write_part(storage, key, [], FOOTER).n_rows == 0
    assert list(read_results(storage, key)) == []


def test_a_part_is_durable_before_it_is_described(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded_disk(monkeypatch) as events:
        write_part(storage, part_key(JOB, 3, 2), [ok_row(0)], FOOTER)
    events.check_durable(storage.path("parts"))
    assert ("fsync", storage.root.stat().st_ino) in events.log  # where `parts` itself is new


def test_a_row_named_twice_is_our_own_mistake(storage: LocalStorage) -> None:
    with pytest.raises(AssertionError, match="twice"):
        write_part(storage, part_key(JOB, 3, 2), [ok_row(1), ok_row(1)], FOOTER)
    assert list(storage.path("parts").rglob("*.*")) == []


def test_other_rows_on_disk_than_in_memory_are_noticed(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = parts._encode

    def swapped(file: Any, groups: Any, footer: PartFooter, summary: Any) -> None:
        encode(file, groups, footer, summary)
        summary.rows[1] = 1

    monkeypatch.setattr(parts, "_encode", swapped)
    key = part_key(JOB, 3, 2)
    with pytest.raises(Corrupt, match="rows that were written"):
        write_part(storage, key, [ok_row(0), error_row(2)], FOOTER)
    assert list(storage.path(key).parent.iterdir()) == []


def test_a_full_disk_leaves_nothing(storage: LocalStorage) -> None:
    key = part_key(JOB, 3, 2)
    with small_disk(2000), pytest.raises(OSError, match="File too large"):
        write_part(storage, key, mixed_rows(0, 500), FOOTER)
    assert list(storage.path(key).parent.iterdir()) == []


@pytest.fixture
def key(storage: LocalStorage) -> str:
    name = part_key(JOB, 3, 2)
    write_part(storage, name, mixed_rows(0, 6), FOOTER)
    return name


def test_a_changed_byte_is_named(storage: LocalStorage, key: str) -> None:
    path = storage.path(key)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    writable(path).write_bytes(data)
    with pytest.raises(Corrupt, match=re.escape(key)):
        list(read_part(storage, key, sha256=sha256))


def test_a_changed_page_is_noticed_without_a_recorded_sum(storage: LocalStorage, key: str) -> None:
    path = storage.path(key)
    column = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    writable(path).write_bytes(data)
    with pytest.raises(Corrupt, match=rf"{re.escape(key)} cannot be read.*CRC"):
        list(read_part(storage, key))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_what_is_not_a_part_is_named(storage: LocalStorage, key: str, content: bytes) -> None:
    writable(storage.path(key)).write_bytes(content)
    with pytest.raises(Corrupt, match=re.escape(key)):
        list(read_part(storage, key))
    with pytest.raises(Corrupt, match=re.escape(key)):
        read_footer(storage, key)


def test_a_missing_part_is_named(storage: LocalStorage, key: str) -> None:
    storage.delete(key)
    with pytest.raises(Corrupt, match=f"{re.escape(key)} is missing"):
        list(read_results(storage, key))
    with pytest.raises(Corrupt, match=re.escape(key)):
        read_footer(storage, key)


def test_other_columns_are_refused(storage: LocalStorage, key: str) -> None:
    pq.write_table(to_table([ok_row(0)]).drop_columns(["seed"]), writable(storage.path(key)))
    with pytest.raises(Corrupt, match="columns of schema 1"):
        list(read_part(storage, key))
    with pytest.raises(Corrupt, match="footer"):
        read_footer(storage, key)


def test_footers_of_two_shards_differ(storage: LocalStorage, key: str) -> None:
    other = part_key(JOB, 4, 2)
    write_part(storage, other, [ok_row(9)], replace(FOOTER, shard=4, pos_start=9, pos_end=10))
    assert read_footer(storage, other).shard == 4
    assert read_footer(storage, key).shard == 3


def long_rows(start: int, stop: int) -> list[ResultRow]:
    """Return rows of which each takes about 10 kB."""
    return [ok_row(row, "x" * 10_000) for row in range(start, stop)]


def test_a_part_is_written_and_read_by_so_many_bytes_at_a_time(storage: LocalStorage) -> None:
    key = part_key(JOB, 3, 2)
    rows = long_rows(0, 10)
    info = write_part(storage, key, rows, FOOTER, group_bytes=45_000)
    assert (info.n_rows, info.prompt_tokens) == (10, 30)
    metadata = pq.read_metadata(storage.path(key))
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [2] * 5
    assert [len(table) for table in read_part(storage, key, sha256=info.sha256)] == [2] * 5
    assert list(read_results(storage, key)) == rows
    assert inspect_part(storage, key).info == info


def test_a_row_longer_than_a_row_group_has_one_of_its_own(storage: LocalStorage) -> None:
    key = part_key(JOB, 3, 2)
    rows = [*mixed_rows(0, 3), *long_rows(3, 4), *mixed_rows(4, 6)]
    write_part(storage, key, rows, FOOTER, group_bytes=5000)
    assert [len(table) for table in read_part(storage, key)] == [3, 1, 2]
    assert list(read_results(storage, key)) == rows


def test_rows_of_a_checkpoint_join_those_in_memory_in_order(storage: LocalStorage) -> None:
    saved = part_key(JOB, 3, 2, "ckpt")
    write_part(storage, saved, mixed_rows(0, 9)[::2], FOOTER)
    key = part_key(JOB, 3, 2)
    info = write_part(
        storage, key, mixed_rows(0, 9)[1::2], FOOTER, saved=read_results(storage, saved)
    )
    assert list(read_results(storage, key)) == mixed_rows(0, 9)
    assert (info.n_ok, info.n_err, info.completion_tokens) == (6, 3, 12)


def test_a_disk_that_cannot_be_read_says_nothing_of_the_part(
    storage: LocalStorage, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(parts, "row_groups", refuse)
    with pytest.raises(OSError, match="Input/output"):
        list(read_part(storage, key))
    with pytest.raises(OSError, match="Input/output"):
        write_part(storage, part_key(JOB, 4, 2), [ok_row(0)], FOOTER)
