from __future__ import annotations

from typing import Any

import pytest

from batchgen.requests.values.checks import (
    EARLY_STOPPING,
    FLAG,
    LOGIT_BIAS,
    MAX_BIASED,
    MAX_STOP_LENGTH,
    MAX_STOP_STRINGS,
    MAX_TOKEN_ID,
    STOP,
    Field,
    number,
    token_ids,
    whole,
)
from batchgen.requests.values.line_error import LineError

WHOLE, NUMBER, ABOVE, IDS = whole(-1, 3), number(-2, 2), number(0, 1, above=True), token_ids(1, 3)


@pytest.mark.parametrize(
    ("field", "given", "read"),
    [
        (WHOLE, -1, -1),
        (WHOLE, 3, 3),
        (NUMBER, -2, -2.0),
        (NUMBER, 0.5, 0.5),
        (ABOVE, 1e-300, 1e-300),
        (ABOVE, 1, 1.0),
        (IDS, [MAX_TOKEN_ID], (MAX_TOKEN_ID,)),
        (IDS, [0, 5, 5], (0, 5, 5)),
        (token_ids(0, 3), [], ()),
        (FLAG, True, True),
        (EARLY_STOPPING, "never", "never"),
        (EARLY_STOPPING, False, False),
        (STOP, "END", ("END",)),
        (STOP, ["a", "b"], ("a", "b")),
        (STOP, [], ()),
        (STOP, ["x" * MAX_STOP_LENGTH] * MAX_STOP_STRINGS, ("x" * MAX_STOP_LENGTH,) * 16),
        (LOGIT_BIAS, {}, {}),
        (LOGIT_BIAS, {"0": -100, str(MAX_TOKEN_ID): 0.5}, {0: -100.0, MAX_TOKEN_ID: 0.5}),
        (LOGIT_BIAS, dict.fromkeys(map(str, range(MAX_BIASED)), 1), dict.fromkeys(range(1024), 1)),
    ],
)
def test_values_in_bounds_are_read(field: Field, given: Any, read: Any) -> None:
    found = field.check("f", given)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("field", "given", "code"),
    [
        (WHOLE, -2, "invalid_value"),
        (WHOLE, 4, "invalid_value"),
        (WHOLE, 1.0, "invalid_type"),
        (WHOLE, True, "invalid_type"),
        (WHOLE, "1", "invalid_type"),
        (NUMBER, 2.001, "invalid_value"),
        (NUMBER, float("nan"), "invalid_value"),
        (NUMBER, float("-inf"), "invalid_value"),
        (NUMBER, False, "invalid_type"),
        (NUMBER, "0.7", "invalid_type"),
        (ABOVE, 0, "invalid_value"),
        (ABOVE, -0.0, "invalid_value"),
        (IDS, [], "invalid_value"),
        (IDS, [1] * 4, "invalid_value"),
        (IDS, [-1], "invalid_value"),
        (IDS, [MAX_TOKEN_ID + 1], "invalid_value"),
        (IDS, [1.0], "invalid_type"),
        (IDS, [True], "invalid_type"),
        (IDS, 1, "invalid_type"),
        (FLAG, 1, "invalid_type"),
        (FLAG, "true", "invalid_type"),
        (EARLY_STOPPING, "always", "invalid_value"),
        (EARLY_STOPPING, 0, "invalid_type"),
        (STOP, 5, "invalid_type"),
        (STOP, ["a", 5], "invalid_type"),
        (STOP, "", "invalid_value"),
        (STOP, ["a", ""], "invalid_value"),
        (STOP, "x" * (MAX_STOP_LENGTH + 1), "invalid_value"),
        (STOP, ["x"] * (MAX_STOP_STRINGS + 1), "invalid_value"),
        (LOGIT_BIAS, [], "invalid_type"),
        (LOGIT_BIAS, {"5": True}, "invalid_type"),
        (LOGIT_BIAS, {"5": "1"}, "invalid_type"),
        (LOGIT_BIAS, {"5": 100.5}, "invalid_value"),
        (LOGIT_BIAS, {"5": float("nan")}, "invalid_value"),
        (LOGIT_BIAS, {"-5": 1}, "invalid_value"),
        (LOGIT_BIAS, {"05": 1}, "invalid_value"),
        (LOGIT_BIAS, {"\N{ARABIC-INDIC DIGIT FIVE}": 1}, "invalid_value"),
        (LOGIT_BIAS, {"": 1}, "invalid_value"),
        (LOGIT_BIAS, {"the": 1}, "invalid_value"),
        (LOGIT_BIAS, {5: 1}, "invalid_value"),
        (LOGIT_BIAS, {str(MAX_TOKEN_ID + 1): 1}, "invalid_value"),
        (LOGIT_BIAS, {"9" * 5_000: 1}, "invalid_value"),
        (LOGIT_BIAS, dict.fromkeys(map(str, range(MAX_BIASED + 1)), 1), "invalid_value"),
    ],
)
def test_other_values_are_refused_by_name(field: Field, given: Any, code: str) -> None:
    with pytest.raises(LineError) as caught:
        field.check("f", given)
    error = caught.value.error
    assert (error.code, error.param) == (code, "f")
    assert "'f'" in error.message


@pytest.mark.parametrize("field", [STOP, IDS])
def test_a_list_without_end_is_not_looked_through(field: Field) -> None:
    with pytest.raises(LineError, match=r"not 100,?000") as caught:
        field.check("f", [None] * 100_000)
    assert caught.value.error.code == "invalid_value"
    assert len(caught.value.error.message) < 100


def test_bounds_are_put_in_words() -> None:
    assert [each.bounds for each in (WHOLE, NUMBER, ABOVE, whole(1, 1 << 20))] == [
        "-1 to 3",
        "-2 to 2",
        "above 0, at most 1",
        "1 to 1,048,576",
    ]
