from __future__ import annotations

from typing import Any

import pytest

from batchgen.core.kv_totals import UNMEASURED, KVTotals
from batchgen.core.numerics import Numerics
from batchgen.core.params import SamplingParams
from batchgen.core.rows import Choice, Generation, InputRow, KVUse, RowError, Usage
from batchgen_workers.shard.shard import Ending, ResultLimits, Shard
from tests.support.jobs import lease_without_store
from tests.support.result_rows import ok_row

LEASE = lease_without_store(pos_start=100, pos_end=103)
SMALL = Numerics(device="cpu", dtype="float32", quantize="int8")
HALF = Numerics(device="cuda", dtype="bfloat16")


def new_shard(**fields: Any) -> Shard:
    return Shard(LEASE, limits=fields.get("limits"))


def row(number: int) -> InputRow:
    return InputRow(row=number, custom_id=f"q{number}", params=SamplingParams(), prompt="x")


def answer(key: int, text: str = "yes") -> Generation:
    return Generation(
        key=key,
        choices=[Choice(index=0, text=text, finish_reason="stop")],
        kv=KVUse(preemptions=1, copies=2, utilisation=0.5, sharing_saving=0.25),
    )


def test_a_shard_is_complete_with_its_last_row() -> None:
    shard = new_shard()
    shard.keep([ok_row(100)])
    shard.expect([row(101), row(102)])
    shard.fed()
    shard.receive(row(101), answer(1))
    assert shard.ending is None
    shard.receive(row(102), answer(2))
    assert shard.ending is Ending.COMPLETE
    rows, *_ = shard.results()
    assert sorted(result.row for result in rows) == [100, 101, 102]
    assert {result.attempt for result in rows if result.row > 100} == {2}


def test_it_is_due_with_its_last_row_and_not_before() -> None:
    due: list[Ending | None] = []
    shard = new_shard()
    shard.on_due = lambda: due.append(shard.ending)
    shard.expect([row(100), row(101), row(102)])
    shard.fed()
    for number in (102, 100):
        shard.receive(row(number), answer(number))
    assert due == []
    shard.receive(row(101), answer(101))
    assert due == [Ending.COMPLETE]


def test_rows_that_did_not_go_to_the_engine_are_not_waited_for() -> None:
    shard = new_shard()
    shard.expect([row(100), row(101)])
    shard.close()
    shard.withdraw([row(100), row(101)])
    shard.fed()
    assert shard.ending is Ending.DRAINED


def test_nothing_is_settled_while_rows_are_being_fed() -> None:
    shard = new_shard()
    shard.end(Ending.HELD)
    assert shard.ending is None
    shard.fed()
    assert shard.ending is Ending.HELD


def test_a_row_is_counted_once_whatever_comes_twice() -> None:
    shard = new_shard()
    shard.expect([row(100)])
    shard.receive(row(100), answer(1, "first"))
    shard.receive(row(100), answer(1, "second"))
    rows, kv, _ = shard.results()
    assert [result.choices[0].text for result in rows] == ["first"]
    assert kv == KVTotals(rows=1, preemptions=1, copies=2, utilisation=0.5, sharing_saving=0.25)


def test_rows_given_up_are_not_taken_any_more() -> None:
    shard = new_shard()
    shard.expect([row(100), row(101)])
    shard.receive(row(100), answer(1))
    shard.forget_engine_rows()
    shard.receive(row(101), answer(2))
    rows, kv, _ = shard.results()
    assert (len(rows), kv.rows, kv.preemptions) == (1, 1, 1)


def test_totals_go_on_from_those_of_a_checkpoint() -> None:
    shard = new_shard()
    saved = KVTotals(rows=1, preemptions=4, copies=1, utilisation=1.0, sharing_saving=0.75)
    shard.keep([ok_row(100)], saved)
    shard.expect([row(101)])
    shard.receive(row(101), answer(1))
    shard.keep([ok_row(102)])
    _, kv, _ = shard.results()
    assert kv == KVTotals(rows=2, preemptions=5, copies=3, utilisation=0.75, sharing_saving=0.5)


def test_nothing_is_measured_of_rows_without_an_engine() -> None:
    shard = new_shard()
    shard.keep([ok_row(100)])
    assert shard.results()[1] == UNMEASURED


def test_it_tells_how_its_answers_were_computed() -> None:
    shard = new_shard()
    shard.expect([row(101), row(102)])
    shard.receive(row(101), Generation(key=1, error=RowError(code="x", message="m")), HALF)
    assert shard.results()[2] == ()
    shard.receive(row(102), answer(2), HALF)
    assert shard.results()[2] == (HALF,)


def test_a_checkpoints_answers_may_have_been_computed_in_another_way() -> None:
    shard = new_shard()
    shard.recall([100], UNMEASURED, (SMALL,))
    shard.expect([row(101), row(102)])
    for number in (101, 102):
        shard.receive(row(number), answer(number), HALF)
    assert shard.results()[2] == (SMALL, HALF)


def test_a_closing_shard_waits_for_the_engine_and_no_longer() -> None:
    shard = new_shard()
    shard.expect([row(100)])
    shard.close()
    shard.fed()
    assert not shard.wants_rows
    assert shard.ending is None
    shard.receive(row(100), answer(1))
    assert shard.ending is Ending.DRAINED


def test_a_closing_shard_that_has_every_row_is_complete() -> None:
    shard = new_shard()
    shard.keep([ok_row(number) for number in range(100, 103)])
    shard.close()
    shard.fed()
    assert shard.ending is Ending.COMPLETE


@pytest.mark.parametrize(
    "ending", [Ending.HELD, Ending.STOPPED, Ending.ENGINE_DIED, Ending.BROKEN, Ending.UNREADABLE]
)
def test_a_shard_ends_early_unless_it_is_complete(ending: Ending) -> None:
    shard = new_shard()
    shard.fed()
    shard.end(ending, "because")
    assert not shard.wants_rows
    assert (shard.ending, shard.reason) == (ending, "because")
    shard.keep([ok_row(number) for number in range(100, 103)])
    assert shard.ending is Ending.COMPLETE


def test_the_first_reason_counts() -> None:
    shard = new_shard()
    shard.fed()
    shard.end(Ending.STOPPED, "cancelled")
    shard.end(Ending.HELD, "draining")
    assert (shard.ending, shard.reason) == (Ending.STOPPED, "cancelled")


def test_being_fenced_overrides_everything() -> None:
    shard = new_shard()
    shard.keep([ok_row(number) for number in range(100, 103)])
    shard.end(Ending.HELD)
    shard.end(Ending.FENCED)
    shard.fed()
    assert shard.ending is Ending.FENCED


@pytest.mark.parametrize("act", [Shard.close, lambda shard: shard.end(Ending.HELD)])
def test_whoever_feeds_is_told_to_stop(act: Any) -> None:
    shard = new_shard()
    act(shard)
    assert shard.feeding.is_cancelled


def test_a_heavy_shard_is_saved_at_once_and_keeps_numbers_only() -> None:
    shard = new_shard(limits=ResultLimits(memory_bytes=2000))
    shard.expect([row(100), row(101), row(102)])
    shard.fed()
    due: list[bool] = []
    shard.on_due = lambda: due.append(shard.is_heavy)
    shard.receive(row(100), answer(1, "x" * 3000))
    assert due == [True]
    assert shard.ending is None
    results, kv, _ = shard.results()
    shard.shelve(results)
    assert not shard.is_heavy
    assert shard.results()[0] == []
    assert (shard.rows_done, shard.has(100), shard.is_shelved(100)) == (1, True, True)
    shard.receive(row(101), answer(2))
    shard.receive(row(102), answer(3))
    assert shard.ending is Ending.COMPLETE
    assert shard.results()[1].rows == kv.rows + 2 == 3


def test_a_shard_of_long_answers_gives_up_what_is_untouched_once() -> None:
    shard = new_shard(limits=ResultLimits(part_bytes=2000))
    shard.expect([row(100), row(101), row(102)])
    shard.receive(row(100), answer(1))
    assert not shard.is_to_split
    shard.receive(row(101), answer(2, "x" * 3000))
    assert shard.is_to_split
    shard.is_to_split = False  # its feeder has
    shard.receive(row(102), answer(3))
    assert not shard.is_to_split


def test_what_is_another_shards_now_is_shelved_no_more() -> None:
    shard = new_shard()
    shard.recall([100, 102], UNMEASURED, ())
    shard.narrow(lease_without_store(pos_start=100, pos_end=102))
    assert (shard.rows_done, shard.has(102)) == (1, False)


def test_tokens_are_those_of_rows_that_ended() -> None:
    shard = new_shard()
    shard.recall([100], UNMEASURED, (), tokens=11)
    shard.expect([row(101), row(102)])
    shard.receive(row(101), Generation(key=1, usage=Usage(prompt_tokens=3, completion_tokens=6)))
    assert shard.tokens_done == 17
