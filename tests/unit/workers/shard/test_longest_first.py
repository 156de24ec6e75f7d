from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batchgen.core.params import SamplingParams
from batchgen.core.rows import InputRow
from batchgen_workers.shard.longest_first import longest_last_rows_first, tail_length


def row(number: int, max_tokens: int | None = None, prompt: str = "x", **fields: Any) -> InputRow:
    params = SamplingParams(max_tokens=max_tokens)
    text = None if "messages" in fields else prompt
    return InputRow(row=number, custom_id=f"q{number}", params=params, prompt=text, **fields)


def order(rows: list[InputRow], length: int) -> list[int]:
    return [each.row for each in longest_last_rows_first(rows, length)]


def test_the_tail_is_longest_first_and_the_rest_stays_in_order() -> None:
    rows = [row(at, max_tokens) for at, max_tokens in enumerate([9, 1, 5, 2, 7, 3])]
    assert order(rows, 3) == [0, 1, 2, 4, 5, 3]
    assert order(rows, 0) == [0, 1, 2, 3, 4, 5]
    assert order(rows, 100) == [0, 4, 2, 5, 3, 1]


def test_rows_without_a_bound_come_first_and_long_prompts_before_short_ones() -> None:
    messages = [{"role": "user", "content": "a" * 30}, {"role": "user", "content": "b" * 30}]
    rows = [
        row(0, 10, "short"),
        row(1, 10, "l" * 50),
        row(2, 10, messages=messages),
        row(3),
        row(4, 10, "short"),
    ]
    assert order(rows, 5) == [3, 2, 1, 0, 4]


def test_rows_go_on_as_soon_as_the_tail_is_held() -> None:
    taken = []

    def endless() -> Any:
        number = 0
        while True:
            taken.append(number)
            yield row(number)
            number += 1

    rows = longest_last_rows_first(endless(), 4)
    assert [next(rows).row for _ in range(3)] == [0, 1, 2]
    assert len(taken) == 7


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(0, 40))
def test_every_row_goes_once(bounds: list[int], length: int) -> None:
    rows = [row(at, bound) for at, bound in enumerate(bounds)]
    assert sorted(order(rows, length)) == list(range(len(bounds)))


def test_the_tail_is_two_batches() -> None:
    assert tail_length(128) == 256
