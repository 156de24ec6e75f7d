"""Each rule is broken on tables without constraints: those would refuse most of this."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, delete, insert, update

from batchgen.database.batch_tables import batches, files
from batchgen.database.database import Database
from batchgen.database.tables import checkpoints, jobs, metadata, parts, removals, shards, totals
from batchgen.errors import StoreMismatch
from batchgen.jobs.store import Store
from batchgen.repair.invariants import QUERIES, RULES, check_invariants, check_tables
from batchgen.storage.storage import LocalStorage
from tests.support.jobs import claim_first, commit_all, let_expire, part_of, running_job

N_ROWS = 30


@pytest.fixture(params=["sqlite", "postgresql"])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store whose tables have no constraint, holding one sound, completed job."""
    if request.param == "sqlite":
        database = Database.create(f"sqlite:///{tmp_path}/bare.db")
    else:
        database = Database(request.getfixturevalue("empty_postgres_url"))
    tables = MetaData()
    for table in metadata.sorted_tables:
        Table(table.name, tables, *[Column(column.name, column.type) for column in table.columns])
    with database.begin() as connection:
        tables.create_all(connection)
        connection.execute(insert(jobs), job())
        connection.execute(insert(shards), [shard(n) for n in (1, 2, 3)])
        connection.execute(insert(parts), [part(n) for n in (1, 2, 3)])
        connection.execute(insert(totals), sums())
    yield Store(database)
    database.close()


def job(**values: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "public_id": "0" * 32,
        "state": "completed",
        "n_rows": N_ROWS,
        "n_positions": N_ROWS,
        "finalizing_at": 100.0,
        "ended_at": 200.0,
        **values,
    }


def shard(number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": number,
        "job_id": 1,
        "parent_id": None,
        "pos_start": (number - 1) * 10,
        "pos_end": number * 10,
        "n_rows": 10,
        "state": "committed",
        "epoch": 1,
        "attempts": 1,
        "lease_owner": None,
        "lease_expires_at": None,
        **values,
    }


def part(number: int, **values: Any) -> dict[str, Any]:
    return {
        "shard_id": number,
        "job_id": 1,
        "epoch": 1,
        "path": f"parts/{number}",
        "n_rows": 10,
        "n_ok": 9,
        "n_err": 1,
        "prompt_tokens": 70,
        "completion_tokens": 30,
        "cached_tokens": 20,
        "preemptions": 1,
        "copies": 2,
        "kv_utilisation": 0.7,
        "sharing_saving": 0.1,
        "committed_at": 50.0,
        **values,
    }


def sums(**values: Any) -> dict[str, Any]:
    return {
        "job_id": 1,
        "parts": 3,
        "n_rows": 30,
        "n_ok": 27,
        "n_err": 3,
        "prompt_tokens": 210,
        "completion_tokens": 90,
        "cached_tokens": 60,
        "preemptions": 3,
        "copies": 6,
        "kv_rows": 27,
        "kv_utilisation": 18.9,
        "sharing_saving": 2.7,
        **values,
    }


def broken(store: Store) -> set[str]:
    return {violation.invariant for violation in check_tables(store)}


def change(store: Store, *statements: Any) -> None:
    with store.database.begin() as connection:
        for statement in statements:
            connection.execute(statement)


def set_part(number: int, **values: Any) -> Any:
    return update(parts).where(parts.c.shard_id == number).values(**values)


def set_shard(number: int, **values: Any) -> Any:
    return update(shards).where(shards.c.id == number).values(**values)


def split(store: Store, *children: tuple[int, int]) -> None:
    """Split the second shard into children given as [start, end)."""
    change(store, set_shard(2, state="split"), delete(parts).where(parts.c.shard_id == 2))
    for number, (start, end) in enumerate(children, start=10):
        size = end - start
        row = shard(number, parent_id=2, pos_start=start, pos_end=end, n_rows=size)
        change(store, insert(shards).values(row))
        change(store, insert(parts).values(part(number, n_rows=size)))
    more = {
        name: totals.c[name] + (len(children) - 1) * value / 3
        for name, value in sums().items()
        if name not in ("job_id", "n_rows")
    }
    rows = sum(end - start for start, end in children) - 10
    change(store, update(totals).values(**more, n_rows=totals.c.n_rows + rows))


def test_a_sound_job_breaks_nothing(bare: Store) -> None:
    assert check_tables(bare) == []


def test_every_rule_has_a_query_or_is_about_files() -> None:
    assert set(RULES) == {f"I{number}" for number in range(1, 19)}
    assert set(RULES) - set(QUERIES) == {"I6", "I12", "I18"}


def test_i1_two_parts_of_one_shard(bare: Store) -> None:
    change(bare, insert(parts).values(part(1, path="parts/other")))
    assert "I1" in broken(bare)


@pytest.mark.parametrize(
    "statement",
    [
        set_shard(1, epoch=2),
        set_shard(1, state="stopped"),
        delete(shards).where(shards.c.id == 1),
    ],
)
def test_i2_a_part_without_its_commit(bare: Store, statement: Any) -> None:
    change(bare, statement)
    assert "I2" in broken(bare)


def test_i3_a_commit_without_its_part(bare: Store) -> None:
    change(bare, delete(parts).where(parts.c.shard_id == 2))
    assert "I3" in broken(bare)


@pytest.mark.parametrize(
    "statement",
    [
        set_shard(1, pos_start=1),
        set_shard(2, pos_start=9),
        set_shard(2, pos_start=11),
        set_shard(2, pos_end=19),
        set_shard(3, pos_end=29),
        set_shard(3, pos_end=31),
        set_shard(2, state="split"),
        delete(shards),
        update(jobs).values(n_positions=31),
    ],
)
def test_i4_a_gap_or_an_overlap(bare: Store, statement: Any) -> None:
    change(bare, statement)
    assert "I4" in broken(bare)


@pytest.mark.parametrize(
    "statement",
    [
        set_part(3, n_rows=9),
        delete(parts).where(parts.c.shard_id == 3),
        set_shard(3, state="stopped"),
        update(jobs).values(n_rows=31),
    ],
)
def test_i5_completed_without_every_row(bare: Store, statement: Any) -> None:
    change(bare, statement)
    assert "I5" in broken(bare)


def test_i7_two_parts_of_one_path(bare: Store) -> None:
    change(bare, set_part(2, path="parts/1"))
    assert broken(bare) == {"I7"}


@pytest.mark.parametrize(
    "statement",
    [
        set_shard(1, state="leased", lease_owner="w"),
        set_shard(1, state="leased", lease_expires_at=1.0),
        set_shard(1, lease_owner="w"),
        set_shard(1, state="ready", lease_owner="w", lease_expires_at=1.0),
    ],
)
def test_i8_a_lease_that_is_none(bare: Store, statement: Any) -> None:
    change(bare, statement)
    assert "I8" in broken(bare)


@pytest.mark.parametrize(
    "statement",
    [
        set_part(1, epoch=2),
        set_shard(1, attempts=2),
        insert(checkpoints).values(shard_id=1, epoch=2, path="c", n_rows=1, sha256=""),
    ],
)
def test_i9_an_epoch_that_fell(bare: Store, statement: Any) -> None:
    change(bare, statement)
    assert "I9" in broken(bare)


@pytest.mark.parametrize(
    "statement",
    [
        set_part(1, committed_at=150.0),
        update(jobs).values(state="failed", finalizing_at=None, ended_at=40.0),
        update(jobs).values(state="queued", finalizing_at=None, ended_at=None),
    ],
)
def test_i10_a_part_that_came_too_late(bare: Store, statement: Any) -> None:
    change(bare, statement)
    assert broken(bare) == {"I10"}


def test_i11_children_that_tile_their_parent(bare: Store) -> None:
    split(bare, (10, 13), (13, 20))
    assert check_tables(bare) == []


@pytest.mark.parametrize(
    "children",
    [
        [],
        [(10, 19)],
        [(11, 20)],
        [(10, 14), (15, 20)],
        [(10, 16), (15, 20)],
        [(10, 14), (14, 21)],
    ],
)
def test_i11_children_that_do_not(bare: Store, children: list[tuple[int, int]]) -> None:
    split(bare, *children)
    assert "I11" in broken(bare)


@pytest.mark.parametrize("name", [name for name in sums() if name != "job_id"])
def test_i13_totals_that_differ(bare: Store, name: str) -> None:
    change(bare, update(totals).values({name: totals.c[name] + 1}))
    assert broken(bare) == {"I13"}


def test_i13_a_job_without_totals(bare: Store) -> None:
    change(bare, delete(totals))
    assert broken(bare) == {"I13"}


def test_a_violation_says_what_and_where(bare: Store) -> None:
    change(bare, set_part(2, path="parts/1"))
    (violation,) = check_tables(bare)
    assert str(violation) == "I7: no two parts have one path (path parts/1, parts 2)"


def test_i14_a_removed_job_that_is_there(bare: Store) -> None:
    change(bare, insert(removals).values(public_id="f" * 32, removed_at=1.0))
    assert broken(bare) == set()
    change(bare, insert(removals).values(public_id="0" * 32, removed_at=1.0))
    assert broken(bare) == {"I14"}


def batch(**values: Any) -> dict[str, Any]:
    return {
        "id": "0" * 32,
        "tenant_id": "local",
        "job_id": 1,
        "input_sha256": "a",
        "output_file_id": "out",
        "error_file_id": "err",
        **values,
    }


def with_batch(store: Store, **values: Any) -> None:
    change(
        store,
        update(jobs).values(tenant_id="local", input_sha256="a"),
        insert(batches).values(batch(**values)),
        insert(files).values(id="in", tenant_id="local", bytes=5, input_sha256="a"),
        insert(files).values(id="out", tenant_id="local", batch_id=values.get("id", "0" * 32)),
    )


def test_a_sound_batch_breaks_nothing(bare: Store) -> None:
    with_batch(bare)
    assert check_tables(bare) == []


@pytest.mark.parametrize(
    "values", [{"id": "1" * 32}, {"tenant_id": "theirs"}, {"input_sha256": "b"}, {"job_id": 7}]
)
def test_i15_a_batch_with_the_job_of_another(bare: Store, values: dict[str, Any]) -> None:
    with_batch(bare, **values)
    assert "I15" in broken(bare)


@pytest.mark.parametrize(
    "values",
    [
        {"failed_at": 1.0},
        {"cancelled_at": 1.0},
        {"ended": "{}"},
        {"job_id": None, "failed_at": 1.0, "cancelled_at": 1.0},
        {"job_id": None, "input_sha256": None},
    ],
)
def test_i16_a_batch_that_ended_in_two_ways(bare: Store, values: dict[str, Any]) -> None:
    with_batch(bare, **values)
    assert "I16" in broken(bare)


@pytest.mark.parametrize(
    "statement",
    [
        update(files).where(files.c.id == "out").values(batch_id="1" * 32),
        update(files).where(files.c.id == "out").values(id="other"),
        update(files).where(files.c.id == "out").values(tenant_id="theirs"),
        update(files).where(files.c.id == "in").values(batch_id="0" * 32),
        update(files).where(files.c.id == "in").values(bytes=None),
        delete(batches),
    ],
)
def test_i17_a_file_of_nothing(bare: Store, statement: Any) -> None:
    with_batch(bare)
    change(bare, statement)
    assert broken(bare) == {"I17"}


def test_a_store_at_work_breaks_nothing(store: Store, tmp_path: Path) -> None:
    """Every state a shard can be in, in jobs of every kind; only the files are missing."""
    cancelled, finished, waiting = (running_job(store) for _ in range(3))
    for target in (cancelled, waiting):
        lease = claim_first(store, target)
        store.leases.commit(lease, part_of(lease))
        store.leases.checkpoint(claim_first(store, target), part_of(lease, tag="checkpoint"))
        let_expire(store, claim_first(store, target))
    store.jobs.cancel(cancelled.id)
    commit_all(store, finished)
    store.leases.reap()
    store.finalization.finalizable()
    assert check_tables(store) == []
    storage = LocalStorage(tmp_path)
    with pytest.raises(StoreMismatch, match="mounted"):  # without a file it is another folder
        check_invariants(store, storage)
    with storage.write("parts/stray"):
        pass
    found = check_invariants(store, storage)
    assert {violation.invariant for violation in found} == {"I6"}
    assert len(found) == 6
