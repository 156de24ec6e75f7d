"""Isolation finds exactly the rows that end an engine, in few deaths."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen_workers.engine_process.isolation import Isolation

Outcome = tuple[list[int], list[int], int]


def isolate(rows: list[int], poison: set[int], *, interrupt: set[int] | None = None) -> Outcome:
    """Run groups on an engine that dies of `poison`; return what was answered, condemned, deaths.

    The runs whose numbers are in `interrupt` end for another reason.
    """
    isolation = Isolation(rows)
    answered: list[int] = []
    condemned: list[int] = []
    deaths = runs = 0
    while (group := isolation.next_group()) is not None:
        runs += 1
        if runs in (interrupt or ()):
            isolation.try_again(group)
        elif poison.isdisjoint(group):
            answered += group
        else:
            deaths += 1
            found = isolation.died(group)
            condemned += [] if found is None else [found]
    return sorted(answered), sorted(condemned), deaths


@given(
    n_rows=st.integers(0, 300),
    poison=st.sets(st.integers(0, 299), max_size=12),
    interrupt=st.sets(st.integers(1, 20)),
)
def test_every_poisonous_row_is_found_and_no_other(
    n_rows: int, poison: set[int], interrupt: set[int]
) -> None:
    rows = list(range(n_rows))
    poison &= set(rows)
    answered, condemned, _ = isolate(rows, poison, interrupt=interrupt)
    assert condemned == sorted(poison)
    assert answered == sorted(set(rows) - poison)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 32, 256, 1000])
def test_one_poisonous_row_costs_few_deaths(n_rows: int) -> None:
    deaths = max(isolate(list(range(n_rows)), {at})[2] for at in range(n_rows))
    assert deaths <= 2 + math.ceil(math.log2(n_rows))
