from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.inputs.duplicates import AT_ONCE, Duplicate, IdHashes


def repeated(ids: list[str]) -> list[Duplicate]:
    """The plain way: a dictionary of everything."""
    first: dict[str, int] = {}
    return [
        Duplicate(row, first[custom_id], custom_id)
        for row, custom_id in enumerate(ids)
        if first.setdefault(custom_id, row) != row
    ]


def found(ids: list[str], hashes: IdHashes) -> tuple[list[Duplicate], list[int]]:
    """The duplicates that the index finds, by row, and the rows whose ids it read again."""
    read: list[int] = []

    def id_of(row: int) -> str:
        read.append(row)
        return ids[row]

    for custom_id in ids:
        hashes.add(custom_id)
    return sorted(hashes.duplicates(id_of), key=lambda each: each.row), read


def index(hash_id: Callable[[str], int] = hash, *, at_once: int = AT_ONCE) -> IdHashes:
    return IdHashes(io.BytesIO(), hash_id, at_once=at_once)


@given(st.lists(st.text("abc", max_size=3), min_size=1, max_size=60), st.integers(1, 61))
def test_every_repetition_is_found_with_its_first_row(ids: list[str], at_once: int) -> None:
    assert found(ids, index(at_once=at_once))[0] == repeated(ids)


@given(st.lists(st.text("abc", max_size=3), min_size=1, max_size=60), st.integers(1, 61))
def test_a_collision_accuses_nobody(ids: list[str], at_once: int) -> None:
    assert found(ids, index(len, at_once=at_once))[0] == repeated(ids)
    assert found(ids, index(lambda _: -1, at_once=at_once))[0] == repeated(ids)


def test_only_suspects_are_read_again() -> None:
    ids = [f"q-{i}" for i in range(1_000)]
    ids[700] = "q-3"
    duplicates, read = found(ids, index(at_once=64))
    assert duplicates == [Duplicate(700, 3, "q-3")]
    assert sorted(read) == [3, 700]


@pytest.mark.parametrize("ids", [[], ["a"], ["a", "b"]])
def test_nothing_is_read_again_without_need(ids: list[str]) -> None:
    assert found(ids, index()) == ([], [])


def test_memory_does_not_grow_with_the_rows() -> None:
    file = io.BytesIO()
    hashes = IdHashes(file, at_once=100)
    for row in range(1_050):
        hashes.add(f"q-{row}")
    assert len(file.getvalue()) == 1_000 * 8
    tracemalloc.start()
    try:
        assert list(hashes.duplicates(str)) == []
        assert tracemalloc.get_traced_memory()[1] < 30_000
    finally:
        tracemalloc.stop()
