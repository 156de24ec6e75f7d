from __future__ import annotations

import pytest

from batchgen.core.numerics import Numerics, decode_numerics, encode_numerics, merge_numerics

PLAIN = Numerics(device="cpu", dtype="float32")
SMALL = Numerics(device="cpu", dtype="float32", quantize="int8")
HALF = Numerics(device="cuda", dtype="bfloat16")


def test_they_are_text_for_people() -> None:
    assert str(PLAIN) == "float32 on cpu"
    assert str(SMALL) == "float32 with int8 weights on cpu"
    assert str(HALF) == "bfloat16 on cuda"


def test_each_is_named_once_and_in_one_order() -> None:
    assert merge_numerics([HALF, SMALL], [PLAIN, SMALL], []) == (SMALL, PLAIN, HALF)
    assert merge_numerics([PLAIN], [SMALL, HALF]) == (SMALL, PLAIN, HALF)


def test_they_come_back_from_their_text() -> None:
    assert decode_numerics(encode_numerics([SMALL, HALF])) == (SMALL, HALF)
    assert decode_numerics(encode_numerics([])) == ()


@pytest.mark.parametrize("text", [None, "", "[", "{}", '[{"device": "cpu"}]', "[1]", "nonsense"])
def test_without_a_text_nothing_is_known(text: str | None) -> None:
    assert decode_numerics(text) == ()
