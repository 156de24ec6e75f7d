from __future__ import annotations

import numpy as np
import pytest

from batchgen.engine.blocks import NULL_BLOCK, BlockPool
from batchgen.engine.tables import BlockTables


def pool_and_tables(num_blocks: int = 12, *, rows: int = 4) -> tuple[BlockPool, BlockTables]:
    pool = BlockPool(num_blocks, block_size=4)
    return pool, BlockTables(pool, rows=rows, width=num_blocks - 1)


def test_the_null_block_is_never_given_out() -> None:
    pool = BlockPool(5, block_size=4)
    assert sorted(pool.allocate(pool.num_free)) == [1, 2, 3, 4]
    assert NULL_BLOCK not in pool.allocate(0)
    with pytest.raises(AssertionError):
        pool.allocate(1)


def test_blocks_for_rounds_up() -> None:
    pool = BlockPool(5, block_size=4)
    assert [pool.blocks_for(n) for n in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]


def test_a_shared_block_is_free_when_the_last_reference_goes() -> None:
    pool = BlockPool(5, block_size=4)
    blocks = np.array(pool.allocate(2), dtype=np.int32)
    pool.share(blocks)
    pool.release(blocks)
    assert pool.num_used == 2
    pool.release(blocks)
    assert pool.num_used == 0
    pool.check_integrity()


def test_what_was_freed_last_is_used_first() -> None:
    pool = BlockPool(50, block_size=4)
    taken = pool.allocate(5)
    pool.release(np.array(taken, dtype=np.int32))
    assert pool.allocate(5) == taken


def test_a_block_of_one_reader_is_written_in_place() -> None:
    pool = BlockPool(5, block_size=4)
    (block,) = pool.allocate(1)
    assert pool.writable(block) == block
    assert pool.copies == []


@pytest.mark.parametrize("sharers", [2, 3, 4])
def test_n_sharers_of_a_partial_block_make_n_minus_one_copies(sharers: int) -> None:
    pool, tables = pool_and_tables()
    parent = tables.open()
    tables.grow(parent, 6)  # one full block, one with two free slots
    rows = [parent, *(tables.fork(parent) for _ in range(sharers - 1))]
    for row in rows:
        tables.own(row, 6)
    last = [int(tables.of(row)[1]) for row in rows]
    assert len(set(last)) == sharers
    assert len(pool.copies) == sharers - 1
    assert {source for source, _ in pool.copies} == {last[-1]}, "the last sharer keeps the block"
    assert len({int(tables.of(row)[0]) for row in rows}) == 1, "full blocks stay shared"
    tables.check_integrity()
    pool.finish_copies()
    tables.check_integrity()
    assert pool.copies_made == sharers - 1


def test_a_copy_keeps_both_blocks_until_it_ran() -> None:
    pool, tables = pool_and_tables(rows=2)
    parent = tables.open()
    tables.grow(parent, 2)
    child = tables.fork(parent)
    tables.own(child, 2)
    source, destination = pool.copies[0]
    tables.close(parent)
    tables.close(child)
    assert not {source, destination} & set(pool.allocate(pool.num_free))
    pool.finish_copies()
    assert set(pool.allocate(2)) == {source, destination}


def test_a_full_last_block_needs_a_new_block_not_a_copy() -> None:
    pool, tables = pool_and_tables()
    parent = tables.open()
    tables.grow(parent, 8)
    child = tables.fork(parent)
    tables.grow(child, 9)
    tables.own(child, 8)
    assert pool.copies == []
    assert tables.sizes[child] == 3 and tables.sizes[parent] == 2


def test_check_integrity_notices_a_leak() -> None:
    pool, tables = pool_and_tables()
    row = tables.open()
    tables.grow(row, 4)
    pool.references[int(tables.of(row)[0])] += 1
    with pytest.raises(AssertionError):
        tables.check_integrity()
