"""Checks for the value of one field, with the text that documents them.

A check takes (name, value). It returns the value as SamplingParams needs it, or raises LineError
with code `invalid_type` or `invalid_value` and the field's name as `param`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from batchgen.requests.values.line_error import LineError

Check = Callable[[str, Any], Any]

MAX_STOP_STRINGS: Final = 16
MAX_STOP_LENGTH: Final = 1_000  # characters
MAX_BIASED: Final = 1_024  # entries of logit_bias
MAX_BIAS: Final = 100
MAX_TOKEN_ID: Final = (1 << 31) - 1
_MAX_DIGITS: Final = len(str(MAX_TOKEN_ID))


class Sets(dict[str, Any]):
    """The parameters that a field sets if it sets others than the one of its own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One supported field. `kind` and `bounds` are its columns in docs/parameters.md."""

    check: Check
    kind: str
    bounds: str = ""


def whole(low: int, high: int) -> Field:
    """Return a field that is a whole number, low <= value <= high."""

    def check(name: str, value: Any) -> int:
        if type(value) is not int:
            raise LineError("invalid_type", f"'{name}' must be a whole number.", name)
        if not low <= value <= high:
            bounds = f"from {low} to {high}"
            raise LineError("invalid_value", f"'{name}' must be {bounds}, not {value}.", name)
        return value

    return Field(check=check, kind="whole number", bounds=f"{low:,} to {high:,}")


def number(low: float, high: float, *, above: bool = False) -> Field:
    """Return a field that is a number, low <= value <= high, or low < value where `above`."""

    def check(name: str, value: Any) -> float:
        if type(value) is not float and type(value) is not int:
            raise LineError("invalid_type", f"'{name}' must be a number.", name)
        if not low <= value <= high or (above and value == low):
            bounds = f"above {low} and at most {high}" if above else f"from {low} to {high}"
            raise LineError("invalid_value", f"'{name}' must be {bounds}, not {value}.", name)
        return float(value)

    bounds = f"above {low}, at most {high}" if above else f"{low} to {high}"
    return Field(check=check, kind="number", bounds=bounds)


def token_ids(low: int, high: int) -> Field:
    """Return a field that is a list of `low` to `high` token ids."""

    def check(name: str, value: Any) -> tuple[int, ...]:
        if type(value) is not list:
            raise LineError("invalid_type", f"'{name}' must be a list of token ids.", name)
        if not low <= len(value) <= high:
            many = f"{low:,} to {high:,} token ids"
            raise LineError("invalid_value", f"'{name}' may hold {many}, not {len(value):,}.", name)
        if not all(type(token) is int for token in value):
            raise LineError("invalid_type", f"'{name}' must hold whole numbers only.", name)
        if value and not 0 <= min(value) <= max(value) <= MAX_TOKEN_ID:
            range_ = f"from 0 to {MAX_TOKEN_ID}"
            raise LineError("invalid_value", f"Each token id of '{name}' must be {range_}.", name)
        return tuple(value)

    return Field(check=check, kind="list of token ids", bounds=f"{low:,} to {high:,} ids")


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise LineError("invalid_type", f"'{name}' must be true or false.", name)
    return value


def _early_stopping(name: str, value: Any) -> Any:
    if type(value) is not bool and value != "never":
        kind = "true, false or 'never'"
        code = "invalid_value" if type(value) is str else "invalid_type"
        raise LineError(code, f"'{name}' must be {kind}.", name)
    return value


def _stop(name: str, value: Any) -> tuple[str, ...]:
    stops = [value] if type(value) is str else value
    if type(stops) is not list:
        raise LineError("invalid_type", f"'{name}' must be a string or a list of strings.", name)
    if len(stops) > MAX_STOP_STRINGS:
        most = f"at most {MAX_STOP_STRINGS} strings"
        raise LineError("invalid_value", f"'{name}' may hold {most}, not {len(stops)}.", name)
    if not all(type(stop) is str for stop in stops):
        raise LineError("invalid_type", f"'{name}' must be a string or a list of strings.", name)
    if not all(0 < len(stop) <= MAX_STOP_LENGTH for stop in stops):
        length = f"1 to {MAX_STOP_LENGTH} characters"
        raise LineError("invalid_value", f"Each string of '{name}' must have {length}.", name)
    return tuple(stops)


def _logit_bias(name: str, value: Any) -> dict[int, float]:
    if type(value) is not dict:
        raise LineError("invalid_type", f"'{name}' must be an object, {{id: bias}}.", name)
    if len(value) > MAX_BIASED:
        most = f"at most {MAX_BIASED:,} token ids"
        raise LineError("invalid_value", f"'{name}' may hold {most}, not {len(value):,}.", name)
    return {_token_id(name, key): _BIAS.check(name, bias) for key, bias in value.items()}


_BIAS = number(-MAX_BIAS, MAX_BIAS)


def _token_id(name: str, key: Any) -> int:
    # "007" would be a second name of "7".
    digits = type(key) is str and key.isascii() and key.isdigit() and len(key) <= _MAX_DIGITS
    if not digits or str(token := int(key)) != key or token > MAX_TOKEN_ID:
        ids = f'token ids as text, "0" to "{MAX_TOKEN_ID}"'
        raise LineError("invalid_value", f"The names in '{name}' must be {ids}.", name)
    return token


FLAG: Final = Field(check=_flag, kind="true or false")
EARLY_STOPPING: Final = Field(check=_early_stopping, kind='true, false or `"never"`')
STOP: Final = Field(
    check=_stop,
    kind="text, or list of texts",
    bounds=f"{MAX_STOP_STRINGS} texts of 1 to {MAX_STOP_LENGTH:,} characters",
)
LOGIT_BIAS: Final = Field(
    check=_logit_bias,
    kind='object, `{"token id": bias}`',
    bounds=f"{MAX_BIASED:,} biases of -{MAX_BIAS} to {MAX_BIAS}",
)
