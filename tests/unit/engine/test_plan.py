from __future__ import annotations

from batchgen.engine.blocks import BlockPool
from batchgen.engine.plan import pack
from batchgen.engine.sequence import Sequence
from batchgen.engine.tables import BlockTables


def sequence(tables: BlockTables, tokens: list[int], *, prompt: int, computed: int) -> Sequence:
    row = tables.open()
    tables.grow(row, len(tokens))
    return Sequence(
        key=0, index=0, tokens=tokens, num_prompt=prompt, num_computed=computed, row=row
    )


def test_a_plan_packs_what_each_sequence_computes() -> None:
    tables = BlockTables(BlockPool(20, 4), rows=4, width=8)
    decode = sequence(tables, [1, 2, 3, 4, 5], prompt=3, computed=4)
    chunk = sequence(tables, [10, 11, 12, 13, 14, 15, 16], prompt=7, computed=2)
    again = sequence(tables, [20, 21, 22], prompt=2, computed=0)
    plan = pack([(decode, 1), (chunk, 3), (again, 3)], tables)
    assert plan.token_ids.tolist() == [5, 12, 13, 14, 20, 21, 22]
    assert plan.positions.tolist() == [4, 2, 3, 4, 0, 1, 2]
    assert plan.logit_rows.tolist() == [0, 6]
    assert plan.drawing == [decode, again]
    assert plan.tables.shape == (3, 2)
    assert plan.tables[2].tolist() == [int(tables.of(again.row)[0]), 0]
    assert plan.num_tokens == 7
    assert plan.num_prompt_tokens == 0 + 3 + 2


def test_an_empty_plan_is_a_plan() -> None:
    plan = pack([], BlockTables(BlockPool(2, 4), rows=1, width=1))
    assert plan.num_tokens == 0 and plan.drawing == []
