from __future__ import annotations

from batchgen.requests.values.line_error import LineError, quoted


def test_an_error_carries_what_a_row_reports() -> None:
    error = LineError("invalid_type", "'seed' must be a whole number.", "seed")
    assert (error.error.code, error.error.param) == ("invalid_type", "seed")
    assert str(error) == error.error.message


def test_quotes_hold_one_short_line() -> None:
    assert quoted("a\nb\0") == r"'a\nb\x00'"
    assert len(quoted("x" * 1_000)) < 70
