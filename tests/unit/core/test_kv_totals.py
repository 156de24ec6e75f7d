from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.core.kv_totals import UNMEASURED, KVTotals
from batchgen.core.rows import Generation, KVUse, RowError

COUNTS = st.integers(0, 2**40)
SHARES = st.floats(0.0, 1.0)
TOTALS = st.builds(
    KVTotals,
    rows=st.integers(1, 10**6),
    preemptions=COUNTS,
    copies=COUNTS,
    utilisation=SHARES,
    sharing_saving=SHARES,
)
KV = KVUse(preemptions=2, copies=3, utilisation=0.5, sharing_saving=0.25)


def test_a_row_counts_with_what_it_did() -> None:
    totals = KVTotals.of(Generation(key=1, kv=KV))
    assert totals == KVTotals(rows=1, preemptions=2, copies=3, utilisation=0.5, sharing_saving=0.25)


def test_a_row_that_was_not_computed_counts_for_nothing() -> None:
    assert KVTotals.of(Generation(key=1)) == UNMEASURED


def test_a_failed_row_counts_with_its_preemptions_but_not_in_the_means() -> None:
    error = RowError(code="not_finite", message="no")
    totals = KVTotals.of(Generation(key=1, error=error, kv=KV))
    assert totals == KVTotals(preemptions=2, copies=3)
    assert (totals + KVTotals(rows=1, utilisation=1.0)).utilisation == 1.0


@pytest.mark.parametrize(
    ("said", "kept"), [(math.nan, 0.0), (math.inf, 0.0), (-0.5, 0.0), (1.0000001, 1.0)]
)
def test_what_no_database_could_take_is_not_kept(said: float, kept: float) -> None:
    kv = KVUse(utilisation=said, sharing_saving=said)
    totals = KVTotals.of(Generation(key=1, kv=kv))
    assert (totals.utilisation, totals.sharing_saving) == (kept, kept)
    assert KVTotals.decode(totals.encode()) == totals


@given(TOTALS, TOTALS)
def test_a_sum_is_that_of_all_rows(one: KVTotals, two: KVTotals) -> None:
    total = one + two
    assert total.rows == one.rows + two.rows
    assert (total.preemptions, total.copies) == (
        one.preemptions + two.preemptions,
        one.copies + two.copies,
    )
    filled = one.utilisation * one.rows + two.utilisation * two.rows
    assert math.isclose(total.utilisation * total.rows, filled, abs_tol=1e-6)
    saved = one.sharing_saving * one.rows + two.sharing_saving * two.rows
    assert math.isclose(total.sharing_saving * total.rows, saved, abs_tol=1e-6)
    assert 0.0 <= total.utilisation <= 1.0 + 1e-12


def test_nothing_added_changes_nothing() -> None:
    totals = KVTotals(rows=4, preemptions=1, copies=2, utilisation=0.5, sharing_saving=0.25)
    assert totals + UNMEASURED == UNMEASURED + totals == totals
    assert UNMEASURED + UNMEASURED == UNMEASURED


@given(TOTALS)
def test_text_keeps_every_digit(totals: KVTotals) -> None:
    assert KVTotals.decode(totals.encode()) == totals


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"rows": "many"}'])
def test_text_that_cannot_be_read_is_nothing_measured(text: str | None) -> None:
    assert KVTotals.decode(text) == UNMEASURED
