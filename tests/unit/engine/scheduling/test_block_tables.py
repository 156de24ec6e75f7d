"""Block tables against a model of the memory: what a row reads is what was written to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import BlockPool

BLOCK_SIZE = 3


def make_tables(*, blocks: int = 20, rows: int = 5) -> BlockTables:
    return BlockTables(BlockPool(blocks + 1, BLOCK_SIZE), rows=rows, width=blocks)


def test_a_row_grows_by_whole_blocks() -> None:
    tables = make_tables()
    row = tables.open()
    for tokens, size in [(1, 1), (3, 1), (4, 2), (2, 2)]:
        tables.grow(row, tokens)
        assert tables.sizes[row] == size
    assert tables.missing(row, 7) == 1
    tables.check_integrity()


def test_a_closed_row_is_empty_and_given_again() -> None:
    tables = make_tables(rows=1)
    row = tables.open()
    tables.grow(row, 9)
    tables.close(row)
    assert not tables.blocks.any() and tables.pool.num_used == 0
    assert tables.open() == row


def test_check_integrity_notices_a_block_in_two_tables() -> None:
    tables = make_tables()
    one, two = tables.open(), tables.open()
    tables.grow(one, 3)
    tables.grow(two, 3)
    tables.blocks[two, 0] = tables.blocks[one, 0]
    with pytest.raises(AssertionError):
        tables.check_integrity()


def test_check_integrity_notices_a_hole() -> None:
    tables = make_tables()
    row = tables.open()
    tables.grow(row, 9)
    tables.pool.release(tables.of(row)[1:2])
    tables.blocks[row, 1] = 0
    with pytest.raises(AssertionError, match="hole"):
        tables.check_integrity()


def shared_rows(tables: BlockTables, *, tokens: int, rows: int) -> list[int]:
    parent = tables.open()
    tables.grow(parent, tokens)
    return [parent, *(tables.fork(parent) for _ in range(rows - 1))]


@pytest.mark.parametrize(
    ("writers", "copies"), [([], 0), ([0], 1), ([1], 1), ([0, 2], 2), ([0, 1, 2], 2)]
)
def test_copies_are_known_before_they_are_made(writers: list[int], copies: int) -> None:
    tables = make_tables()
    rows = shared_rows(tables, tokens=4, rows=3)
    assert tables.copies_to_own([(rows[i], 4) for i in writers]) == copies
    for i in writers:
        tables.copy_on_write(rows[i], 4)
    assert len(tables.pool.copies) == copies


def test_a_new_block_is_never_copied() -> None:
    tables = make_tables()
    rows = shared_rows(tables, tokens=3, rows=3)
    assert tables.copies_to_own([(row, 3) for row in rows]) == 0


def test_what_left_the_window_is_given_back_by_whole_blocks() -> None:
    tables = make_tables()
    row = tables.open()
    tables.grow(row, 10)
    last = tables.of(row)[2:].tolist()
    for position, used in [(2, 4), (3, 3), (5, 3), (6, 2), (6, 2)]:
        tables.forget(row, position)
        assert tables.pool.num_used == used
        tables.check_integrity()
    assert tables.of(row).tolist() == [0, 0, *last]
    child = tables.fork(row)
    tables.close(row)
    assert tables.of(child).tolist() == [0, 0, *last]
    tables.forget(child, 12)
    assert tables.pool.num_used == 0 and tables.sizes[child] == 4


def test_a_row_may_forget_what_others_still_read() -> None:
    tables = make_tables()
    one, two = shared_rows(tables, tokens=6, rows=2)
    tables.forget(one, 3)
    assert tables.pool.num_used == 2
    tables.check_integrity()
    tables.forget(two, 3)
    assert tables.pool.num_used == 1


def test_utilisation_is_filled_slots_over_slots() -> None:
    tables = make_tables()
    assert tables.utilisation({}) == 0.0
    one, two = shared_rows(tables, tokens=4, rows=2)
    assert tables.utilisation({one: 4, two: 4}) == pytest.approx(4 / 6)
    tables.copy_on_write(two, 4)
    assert tables.utilisation({one: 4, two: 5}) == pytest.approx((3 + 1 + 2) / 9)
    assert tables.utilisation({one: 2, two: 0}) == pytest.approx(2 / 9)


def test_saving_is_what_would_be_needed_besides() -> None:
    tables = make_tables()
    assert tables.sharing_saving() == 0.0
    shared_rows(tables, tokens=9, rows=4)
    assert tables.sharing_saving() == pytest.approx(1 - 3 / 12)
    alone = tables.open()
    tables.grow(alone, 9)
    assert tables.sharing_saving() == pytest.approx(1 - 6 / 15)


class Memory(RuleBasedStateMachine):
    """Appends, forks and frees with lazy copies, over a pool whose freed slots are scribbled on."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = make_tables()
        self.pool = self.tables.pool
        self.slots = np.full((self.pool.num_blocks, BLOCK_SIZE), -1)
        self.expected: dict[int, list[int]] = {}
        self.counter = 0

    def room(self, blocks: int) -> bool:
        return self.pool.num_free >= blocks

    @precondition(lambda self: self.tables.num_closed)
    @rule()
    def open(self) -> None:
        self.expected[self.tables.open()] = []

    @precondition(lambda self: self.expected and self.tables.num_closed)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        parent = data.draw(st.sampled_from(sorted(self.expected)))
        self.expected[self.tables.fork(parent)] = list(self.expected[parent])

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.expected)))
        self.tables.close(row)
        del self.expected[row]

    @precondition(lambda self: self.expected and self.room(2 * len(self.expected)))
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """All of some rows append a token: own, copy, write, as an engine step does."""
        rows = data.draw(st.lists(st.sampled_from(sorted(self.expected)), unique=True))
        for row in rows:
            position = len(self.expected[row])
            self.tables.grow(row, position + 1)
            self.tables.copy_on_write(row, position)
        self.tables.check_integrity()
        for source, destination in self.pool.copies:
            self.slots[destination] = self.slots[source]
        self.pool.finish_copies()
        for row in rows:
            position, self.counter = len(self.expected[row]), self.counter + 1
            block = self.tables.of(row)[position // BLOCK_SIZE]
            self.slots[block, position % BLOCK_SIZE] = self.counter
            self.expected[row].append(self.counter)
        self.slots[self.pool.references == 0] = -1

    @invariant()
    def every_row_reads_what_it_wrote(self) -> None:
        self.tables.check_integrity()
        for row, tokens in self.expected.items():
            assert self.slots[self.tables.of(row)].ravel()[: len(tokens)].tolist() == tokens

    def teardown(self) -> None:
        for row in self.expected:
            self.tables.close(row)
        assert self.pool.num_used == 0


Memory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMemory = Memory.TestCase
