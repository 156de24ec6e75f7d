from __future__ import annotations

import numpy as np
import pytest

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.sequence import NO_ROW, SequenceGroup
from batchgen.engine.scheduling.swapping import Swapper

SIZE = 4


def make_swapper(*, blocks: int = 20, host_blocks: int | None = 20) -> Swapper:
    tables = BlockTables(BlockPool(blocks + 1, SIZE), rows=6, width=blocks)
    host = BlockPool(host_blocks + 1, SIZE) if host_blocks is not None else None
    return Swapper(tables, host)


def running_group(swapper: Swapper, key: int, *, tokens: int, width: int = 1) -> SequenceGroup:
    """Return a group whose sequences share all of their blocks."""
    params = SamplingParams(n=width)
    group = SequenceGroup.of_prompt(key, [key] * tokens, params, max_tokens=9)
    first = group.sequences[0]
    first.table_row = swapper.tables.open()
    swapper.tables.grow(first.table_row, tokens)
    for index in range(1, width):
        sequence = first.fork(index)
        sequence.table_row = swapper.tables.fork(first.table_row)
        group.sequences.append(sequence)
    return group


def tables_of(swapper: Swapper, group: SequenceGroup) -> list[list[int]]:
    return [swapper.tables.of(sequence.table_row).tolist() for sequence in group.sequences]


def forget_all(pool: BlockPool) -> None:
    """Use every free block once."""
    pool.release(np.array(pool.allocate(pool.num_free), dtype=np.int32))


def remember(swapper: Swapper, block: int, key: bytes) -> None:
    swapper.tables.pool.cache_block(block, key)


def test_a_group_comes_back_as_it_left() -> None:
    swapper = make_swapper()
    group = running_group(swapper, 1, tokens=10)
    (before,) = tables_of(swapper, group)
    swapper.swap_out(group)
    assert [sequence.table_row for sequence in group.sequences] == [NO_ROW]
    assert swapper.tables.pool.num_used == 0
    assert [device for device, _ in swapper.outs] == sorted(before)
    out = dict(swapper.outs)
    swapper.check_integrity([group])
    swapper.finish()
    swapper.tables.pool.allocate(5)  # others are where it was
    swapper.swap_in(group)
    back = dict(swapper.ins)
    assert [[back[out[block]] for block in before]] == tables_of(swapper, group)
    swapper.check_integrity([])
    swapper.finish()
    assert swapper.host is not None and swapper.host.num_used == 0
    assert swapper.moved == 6


def test_a_block_that_rows_of_a_group_share_moves_once_and_is_shared_again() -> None:
    swapper = make_swapper()
    group = running_group(swapper, 1, tokens=6, width=3)
    swapper.tables.copy_on_write(group.sequences[1].table_row, 6)
    swapper.tables.pool.finish_copies()
    swapper.swap_out(group)
    assert len(swapper.outs) == 3
    assert swapper.blocks_to_return(group) == 3
    swapper.finish()
    swapper.swap_in(group)
    assert len(swapper.ins) == 3
    one, two, three = tables_of(swapper, group)
    assert one == three and one[0] == two[0] and one[1] != two[1]
    swapper.tables.check_integrity()


def test_a_block_that_groups_share_moves_once() -> None:
    swapper = make_swapper()
    first = running_group(swapper, 1, tokens=8)
    blocks = swapper.tables.of(first.sequences[0].table_row).copy()
    for block, key in zip(blocks.tolist(), [b"1", b"2"], strict=True):
        remember(swapper, block, key)
    second = running_group(swapper, 2, tokens=0)
    second.sequences[0].table_row = swapper.tables.open(blocks)
    swapper.tables.grow(second.sequences[0].table_row, 12)
    for group in (second, first):
        swapper.swap_out(group)
    assert len(swapper.outs) == len(dict(swapper.outs)) == 3
    swapper.check_integrity([first, second])
    swapper.finish()
    forget_all(swapper.tables.pool)
    for group in (first, second):
        swapper.swap_in(group)
    assert len(swapper.ins) == 3
    (one,), (two,) = tables_of(swapper, first), tables_of(swapper, second)
    assert one == two[:2]
    swapper.finish()
    assert swapper.host is not None and swapper.host.num_used == 0


def test_what_the_device_still_knows_is_not_moved_back() -> None:
    swapper = make_swapper()
    group = running_group(swapper, 1, tokens=10)
    (before,) = tables_of(swapper, group)
    for block, key in zip(before[:2], [b"1", b"2"], strict=True):
        remember(swapper, block, key)
    swapper.swap_out(group)
    swapper.finish()
    swapper.swap_in(group)
    (after,) = tables_of(swapper, group)
    assert after[:2] == before[:2]
    assert [device for _, device in swapper.ins] == [after[2]]
    swapper.tables.check_integrity()


def test_a_block_that_came_back_is_known_again() -> None:
    swapper = make_swapper(blocks=3)
    group = running_group(swapper, 1, tokens=4)
    remember(swapper, tables_of(swapper, group)[0][0], b"k")
    swapper.swap_out(group)
    swapper.finish()
    forget_all(swapper.tables.pool)
    assert swapper.tables.pool.cached_block(b"k") is None
    swapper.swap_in(group)
    assert swapper.tables.pool.cached_block(b"k") == tables_of(swapper, group)[0][0]


def test_host_blocks_are_not_given_again_before_they_were_read() -> None:
    swapper = make_swapper(host_blocks=2)
    first, second = (running_group(swapper, key, tokens=8) for key in (1, 2))
    swapper.swap_out(first)
    swapper.finish()
    swapper.swap_in(first)
    assert not swapper.has_room(second)
    swapper.finish()
    assert swapper.has_room(second)


def test_blocks_that_left_the_window_stay_away() -> None:
    swapper = make_swapper()
    group = running_group(swapper, 1, tokens=10)
    swapper.tables.forget(group.sequences[0].table_row, 8)
    swapper.swap_out(group)
    assert len(swapper.outs) == 1
    swapper.finish()
    swapper.swap_in(group)
    assert tables_of(swapper, group)[0][:2] == [0, 0]
    swapper.tables.check_integrity()


def test_a_group_without_blocks_can_be_parked() -> None:
    swapper = make_swapper()
    group = running_group(swapper, 1, tokens=8)
    swapper.tables.forget(group.sequences[0].table_row, 8)
    swapper.swap_out(group)
    swapper.swap_in(group)
    assert swapper.outs == swapper.ins == []
    assert tables_of(swapper, group) == [[0, 0]]


@pytest.mark.parametrize("host_blocks", [None, 2])
def test_there_may_be_no_room(host_blocks: int | None) -> None:
    swapper = make_swapper(host_blocks=host_blocks)
    assert not swapper.has_room(running_group(swapper, 1, tokens=12))


def test_an_aborted_group_leaves_the_host() -> None:
    swapper = make_swapper()
    group = running_group(swapper, 1, tokens=12, width=2)
    swapper.swap_out(group)
    swapper.finish()
    swapper.drop(group)
    swapper.check_integrity([])
    assert swapper.host is not None and swapper.host.num_used == 0


def test_a_returning_group_needs_room_for_what_was_not_computed_yet_too() -> None:
    # Forked off a common prefix that was computed again, before their own tokens had blocks.
    swapper = make_swapper()
    group = running_group(swapper, 1, tokens=4, width=2)
    for sequence in group.sequences:
        sequence.tokens += [9] * 13
    swapper.tables.grow(group.sequences[0].table_row, 17)
    swapper.swap_out(group)
    assert len(swapper.outs) == 5
    assert swapper.blocks_to_return(group) == 5 + 4
