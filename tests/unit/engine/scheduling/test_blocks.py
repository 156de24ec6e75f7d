from __future__ import annotations

import numpy as np
import pytest

from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import NULL_BLOCK, BlockPool


def pool_and_tables(num_blocks: int = 12, *, rows: int = 4) -> tuple[BlockPool, BlockTables]:
    pool = BlockPool(num_blocks, block_size=4)
    return pool, BlockTables(pool, rows=rows, width=num_blocks - 1)


def test_the_null_block_is_never_given_out() -> None:
    pool = BlockPool(5, block_size=4)
    assert sorted(pool.allocate(pool.num_free)) == [1, 2, 3, 4]
    assert NULL_BLOCK not in pool.allocate(0)
    with pytest.raises(AssertionError):
        pool.allocate(1)


def freed(pool: BlockPool, blocks: list[int]) -> None:
    pool.release(np.array(blocks, dtype=np.int32))


def known(pool: BlockPool, *keys: bytes) -> list[int]:
    """Return blocks in use that are known by `keys`."""
    blocks = pool.allocate(len(keys))
    for block, key in zip(blocks, keys, strict=True):
        pool.cache_block(block, key)
    return blocks


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
    freed(pool, taken)
    assert pool.allocate(5) == taken


def test_a_block_of_one_reader_is_written_in_place() -> None:
    pool = BlockPool(5, block_size=4)
    (block,) = pool.allocate(1)
    assert pool.copy_on_write(block) == block
    assert pool.copies == []


@pytest.mark.parametrize("sharers", [2, 3, 4])
def test_n_sharers_of_a_partial_block_make_n_minus_one_copies(sharers: int) -> None:
    pool, tables = pool_and_tables()
    parent = tables.open()
    tables.grow(parent, 6)  # one full block, one with two free slots
    rows = [parent, *(tables.fork(parent) for _ in range(sharers - 1))]
    for row in rows:
        tables.copy_on_write(row, 6)
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
    tables.copy_on_write(child, 2)
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
    tables.copy_on_write(child, 8)
    assert pool.copies == []
    assert tables.sizes[child] == 3 and tables.sizes[parent] == 2


def test_check_integrity_notices_a_leak() -> None:
    pool, tables = pool_and_tables()
    row = tables.open()
    tables.grow(row, 4)
    pool.references[int(tables.of(row)[0])] += 1
    with pytest.raises(AssertionError):
        tables.check_integrity()


def test_check_integrity_notices_a_block_that_is_free_and_used() -> None:
    pool, tables = pool_and_tables()
    row = tables.open()
    tables.grow(row, 4)
    freed(pool, [int(tables.of(row)[0])])
    with pytest.raises(AssertionError):
        tables.check_integrity()


def test_a_freed_block_is_known_until_it_is_given_out_again() -> None:
    pool = BlockPool(4, block_size=4)
    (block,) = known(pool, b"k")
    freed(pool, [block])
    assert pool.cached_block(b"k") == block and pool.num_used == 0
    pool.share(np.array([block], dtype=np.int32))
    assert pool.num_used == 1 and pool.key_of(block) == b"k"
    freed(pool, [block])
    assert block in pool.allocate(3)
    assert pool.cached_block(b"k") is None and pool.key_of(block) is None
    pool.check_integrity([np.array([1, 2, 3], dtype=np.int32)])


def test_a_key_stands_for_one_block_and_a_block_for_one_key() -> None:
    pool = BlockPool(4, block_size=4)
    one, two = known(pool, b"k", b"k")
    assert (pool.cached_block(b"k"), pool.key_of(two)) == (one, None)
    pool.cache_block(one, b"other")
    assert pool.cached_block(b"other") is None


def test_what_nobody_knows_is_given_out_before_what_was_used_least_recently() -> None:
    pool = BlockPool(7, block_size=4)
    old, young = known(pool, b"old", b"young")
    (plain,) = pool.allocate(1)
    never = set(range(1, 7)) - {old, young, plain}
    freed(pool, [old])
    freed(pool, [young])
    freed(pool, [plain])
    assert pool.allocate(1) == [plain]
    assert set(pool.allocate(3)) == never
    assert pool.allocate(2) == [old, young]


def test_of_a_chain_the_tail_is_forgotten_first() -> None:
    pool = BlockPool(4, block_size=4)
    head, middle, tail = known(pool, b"1", b"2", b"3")
    freed(pool, [head, middle, tail])
    assert pool.allocate(3) == [tail, middle, head]


@pytest.mark.parametrize("when", ["unknown", "used", "free"])
def test_a_pinned_key_is_forgotten_last(when: str) -> None:
    pool = BlockPool(4, block_size=4)
    if when == "unknown":
        pool.pin([b"k"])
    pinned, *others = known(pool, b"k", b"l", b"m")
    if when == "used":
        pool.pin([b"k"])
    freed(pool, [pinned, *others])
    if when == "free":
        pool.pin([b"k"])
    pool.check_integrity()
    assert pool.num_free == 3
    assert pool.allocate(3)[-1] == pinned


def test_a_key_is_pinned_until_everyone_let_go_of_it() -> None:
    pool = BlockPool(3, block_size=4)
    pinned, other = known(pool, b"k", b"l")
    pool.pin([b"k"])
    pool.pin([b"k"])
    freed(pool, [pinned])
    freed(pool, [other])
    pool.unpin([b"k"])
    assert pool.allocate(2) == [other, pinned]
    pool.cache_block(other, b"l")
    pool.cache_block(pinned, b"k")
    freed(pool, [pinned])
    freed(pool, [other])
    pool.unpin([b"k"])
    pool.check_integrity()
    assert pool.allocate(2) == [other, pinned], "it counts as used when it was let go"


def test_what_is_known_is_never_written() -> None:
    pool = BlockPool(3, block_size=4)
    (block,) = known(pool, b"k")
    with pytest.raises(AssertionError):
        pool.copy_on_write(block)
