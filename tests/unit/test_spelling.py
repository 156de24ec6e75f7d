from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.spelling import Spelling, suggestion

NAMES = ("n", "top_p", "stop", "num_beams", "max_tokens", "temperature", "frequency_penalty")
SPELLING = Spelling(NAMES, ordinary=["num_teams"])
LONG = st.sampled_from([name for name in NAMES if len(name) > 6])


@pytest.mark.parametrize(
    ("word", "name"),
    [
        # the same letters
        ("maxTokens", "max_tokens"),
        ("MAX-TOKENS", "max_tokens"),
        ("topp", "top_p"),
        ("Stop", "stop"),
        # one mistake: missing, added, wrong, swapped
        ("max_tokns", "max_tokens"),
        ("max_token", "max_tokens"),
        ("max_tokensz", "max_tokens"),
        ("nax_tokens", "max_tokens"),
        ("max_toknes", "max_tokens"),
        # in a short name only a swap
        ("tpo_p", "top_p"),
        ("top_n", None),
        ("stops", None),
        ("top", None),
        # two, in a long name only, behind its first letter
        ("temparture", "temperature"),
        ("freqency_penlty", "frequency_penalty"),
        ("demparature", None),
        ("mx_tokns", None),
        # none of the names is meant
        ("temperature_c", None),
        ("a-stop", None),
        ("N", None),
        ("", None),
        ("_", None),
        ("num_teams", None),
        ("Num_Teams", None),
        ("x" * 1_000_000, None),
        *((name, None) for name in NAMES),
    ],
)
def test_a_near_miss_and_what_is_none(word: str, name: str | None) -> None:
    assert SPELLING.meant(word) == name


@given(LONG, st.integers(0, 40), st.sampled_from(["drop", "double", "swap", "replace"]))
def test_any_single_slip_in_a_long_name_is_seen(name: str, at: int, slip: str) -> None:
    at %= len(name) - 1
    here, after = name[at], name[at + 1]
    changed = {"drop": "", "double": here + here, "swap": after + here, "replace": "q"}[slip]
    word = name[:at] + changed + name[at + (2 if slip == "swap" else 1) :]
    assert SPELLING.meant(word) == (None if word == name else name)


def test_what_is_wrong_in_any_case_gets_the_nearest_name() -> None:
    assert suggestion("temprature", NAMES) == " Did you mean 'temperature'?"
    assert suggestion("colour", NAMES) == ""
    assert suggestion("x" * 1_000_000, NAMES) == ""
