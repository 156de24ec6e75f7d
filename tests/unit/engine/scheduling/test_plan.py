from __future__ import annotations

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.plan import ScheduledTokens, StepPlan, pack
from batchgen.engine.scheduling.sequence import SequenceGroup


def share(
    tables: BlockTables,
    tokens: list[int],
    *,
    prompt: int,
    computed: int,
    count: int,
    judged: bool = False,
) -> ScheduledTokens:
    """Return a share of a group of one sequence that has come so far."""
    params = SamplingParams(prompt_logprobs=0 if judged else None)
    group = SequenceGroup.of_prompt(tokens[0], tokens, params, max_tokens=9)
    (sequence,) = group.sequences
    sequence.num_prompt, sequence.num_computed, sequence.table_row = prompt, computed, tables.open()
    tables.grow(sequence.table_row, len(tokens))
    return ScheduledTokens(group=group, sequence=sequence, count=count)


def make_tables() -> BlockTables:
    return BlockTables(BlockPool(20, 4), rows=4, width=8)


def packed(tables: BlockTables, *shares: ScheduledTokens) -> StepPlan:
    return pack(list(shares), tables, swap_outs=[], swap_ins=[])


def test_a_plan_packs_what_each_sequence_computes() -> None:
    tables = make_tables()
    decode = share(tables, [1, 2, 3, 4, 5], prompt=3, computed=4, count=1)
    chunk = share(tables, [10, 11, 12, 13, 14, 15, 16], prompt=7, computed=2, count=3)
    again = share(tables, [20, 21, 22], prompt=2, computed=0, count=3)
    plan = packed(tables, decode, chunk, again)
    assert plan.token_ids.tolist() == [5, 12, 13, 14, 20, 21, 22]
    assert plan.positions.tolist() == [4, 2, 3, 4, 0, 1, 2]
    assert plan.logit_rows.tolist() == [0, 6]
    assert plan.drawing == [decode.sequence, again.sequence]
    assert (plan.starts.tolist(), plan.counts.tolist()) == ([4, 2, 0], [1, 3, 3])
    assert plan.tables.shape == (3, 2)
    assert plan.tables[2].tolist() == [int(tables.of(again.sequence.table_row)[0]), 0]
    assert plan.num_tokens == 7
    assert plan.num_prompt_tokens == 0 + 3 + 2


def test_an_empty_plan_is_a_plan() -> None:
    plan = packed(make_tables())
    assert plan.num_tokens == plan.num_prompt_tokens == 0
    assert plan.drawing == [] and plan.logit_rows.tolist() == []


def test_prompt_tokens_are_judged_by_the_rows_before_them() -> None:
    tables = make_tables()
    drawn = share(tables, [1, 2, 3], prompt=3, computed=0, count=3)
    first = share(tables, [10, 11, 12, 13, 14], prompt=5, computed=0, count=3, judged=True)
    last = share(tables, [20, 21, 22, 23], prompt=4, computed=1, count=3, judged=True)
    plan = packed(tables, drawn, first, last)
    assert plan.drawing == [drawn.sequence, last.sequence]
    assert plan.token_ids[plan.logit_rows].tolist() == [3, 23, 10, 11, 12, 21, 22]
    assert [(rows.sequence, rows.start, rows.count) for rows in plan.prompt_rows] == [
        (first.sequence, 1, 3),
        (last.sequence, 2, 2),
    ]


def test_a_prompts_last_token_alone_judges_nothing() -> None:
    tables = make_tables()
    plan = packed(tables, share(tables, [20, 21, 22], prompt=3, computed=2, count=1, judged=True))
    assert plan.prompt_rows == [] and plan.logit_rows.tolist() == [0]


def test_a_plan_keeps_what_was_owed_when_it_was_made() -> None:
    tables = make_tables()
    parent = share(tables, [1, 2, 3], prompt=2, computed=2, count=1)
    child = tables.fork(parent.sequence.table_row)
    tables.copy_on_write(child, 2)
    outs, ins = [(1, 2)], [(3, 4)]
    plan = pack([parent], tables, swap_outs=outs, swap_ins=ins)
    assert len(plan.copies) == 1
    before = plan.tables.tolist()
    tables.pool.finish_copies()
    tables.close(parent.sequence.table_row)
    outs.clear()
    ins.clear()
    assert (plan.swap_outs, plan.swap_ins, len(plan.copies)) == ([(1, 2)], [(3, 4)], 1)
    assert plan.tables.tolist() == before
