"""Sampling fields by name: what each may hold, which are not served, which change nothing.

field name ──► check(name, value) ──► the value as SamplingParams wants it
                                 ──► UNSET: accepted, and nothing to do
                                 ──► LineError: wrong type, out of bounds, or not served
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from msgspec import UNSET

from batchgen.io.line_error import LineError

Check = Callable[[str, Any], Any]

MAX_TOKENS: Final = 1 << 20  # longer than any context a model here has
MAX_STOP_STRINGS: Final = 16
MAX_STOP_LENGTH: Final = 1_000  # characters
MAX_SAMPLES: Final = 16
_COMPARED: Final = 64  # characters of a name that are looked at for a suggestion


def _whole(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> int:
        if type(value) is not int:
            raise LineError("invalid_type", f"'{name}' must be a whole number.", name)
        if not low <= value <= high:
            bounds = f"from {low} to {high}"
            raise LineError("invalid_value", f"'{name}' must be {bounds}, not {value}.", name)
        return value

    return check


def _number(low: float, high: float, *, above: bool = False) -> Check:
    """Return a check for low <= value <= high, or low < value <= high where `above`."""

    def check(name: str, value: Any) -> float:
        if type(value) is not float and type(value) is not int:
            raise LineError("invalid_type", f"'{name}' must be a number.", name)
        if not low <= value <= high or (above and value == low):
            bounds = f"above {low} and at most {high}" if above else f"from {low} to {high}"
            raise LineError("invalid_value", f"'{name}' must be {bounds}, not {value}.", name)
        return float(value)

    return check


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise LineError("invalid_type", f"'{name}' must be true or false.", name)
    return value


def _top_k(name: str, value: Any) -> int:
    # vLLM's -1 and our 0 both keep every token.
    return max(0, int(_TOP_K(name, value)))


_TOP_K = _whole(-1, (1 << 31) - 1)


def _stop(name: str, value: Any) -> tuple[str, ...]:
    stops = [value] if type(value) is str else value
    if type(stops) is not list or not all(type(stop) is str for stop in stops):
        raise LineError("invalid_type", f"'{name}' must be a string or a list of strings.", name)
    if len(stops) > MAX_STOP_STRINGS:
        most = f"at most {MAX_STOP_STRINGS} strings"
        raise LineError("invalid_value", f"'{name}' may hold {most}, not {len(stops)}.", name)
    if not all(0 < len(stop) <= MAX_STOP_LENGTH for stop in stops):
        length = f"1 to {MAX_STOP_LENGTH} characters"
        raise LineError("invalid_value", f"Each string of '{name}' must have {length}.", name)
    return tuple(stops)


def _samples(name: str, value: Any) -> int:
    if _SAMPLES(name, value) > 1:
        raise LineError(
            "unsupported_parameter",
            f"'{name}' above 1 is not served: write one line for each sample.",
            name,
        )
    return 1


_SAMPLES = _whole(1, MAX_SAMPLES)


def _unserved(*neutral: Any) -> Check:
    """Return a check for a field that would change the answer, unless its value is neutral."""

    def check(name: str, value: Any) -> Any:
        if value in neutral:
            return UNSET
        raise LineError("unsupported_parameter", f"'{name}' is not served: remove it.", name)

    return check


def _stream(name: str, value: Any) -> Any:
    if value is False:
        return UNSET
    raise LineError(
        "unsupported_parameter",
        f"'{name}' must be false or absent: answers are delivered as a dataset.",
        name,
    )


def _called(ours: str) -> Check:
    """Return a check for another system's name of a field that is served."""

    def check(name: str, value: Any) -> Any:
        raise LineError("unknown_parameter", f"'{name}' is called '{ours}' here: rename it.", name)

    return check


def _ignored(name: str, value: Any) -> Any:
    return UNSET


SAMPLING: Final[Mapping[str, Check]] = {
    "max_tokens": _whole(1, MAX_TOKENS),
    "max_completion_tokens": _whole(1, MAX_TOKENS),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1, above=True),
    "top_k": _top_k,
    "seed": _whole(-(1 << 63), (1 << 63) - 1),
    "stop": _stop,
    "ignore_eos": _flag,
    "n": _samples,
    "return_token_ids": _flag,
}
_UNSERVED: Final[Mapping[str, Check]] = {
    "bad_words": _unserved([]),
    "best_of": _unserved(1),
    "early_stopping": _unserved(False),
    "frequency_penalty": _unserved(0),
    "function_call": _unserved("none"),
    "functions": _unserved([]),
    "length_penalty": _unserved(1),
    "logit_bias": _unserved({}),
    "logprobs": _unserved(False),
    "min_p": _unserved(0),
    "min_tokens": _unserved(0),
    "num_beams": _unserved(1),
    "num_return_sequences": _unserved(1),
    "presence_penalty": _unserved(0),
    "prompt_logprobs": _unserved(False),
    "repetition_penalty": _unserved(1),
    "response_format": _unserved({"type": "text"}),
    "stop_token_ids": _unserved([]),
    "stream": _stream,
    "structured_outputs": _unserved(),
    "tool_choice": _unserved("none"),
    "tools": _unserved([]),
    "top_logprobs": _unserved(0),
    "use_beam_search": _unserved(False),
    "max_new_tokens": _called("max_tokens"),
    "max_output_tokens": _called("max_tokens"),
    "stop_sequences": _called("stop"),
}
# The fields of a shorthand line and of --param. Whatever else a shorthand line holds is the
# caller's own data, so only names that can mean nothing but sampling are listed.
SHORTHAND_FIELDS: Final[Mapping[str, Check]] = {**SAMPLING, **_UNSERVED}
# The fields of an OpenAI request body, beside `messages` or `prompt` and `model`.
OPENAI_FIELDS: Final[Mapping[str, Check]] = {
    **SHORTHAND_FIELDS,
    "audio": _unserved(),
    "echo": _unserved(False),
    "modalities": _unserved(["text"]),
    "prediction": _unserved(),
    "reasoning_effort": _unserved("none"),
    "suffix": _unserved(""),
    "verbosity": _unserved(),
    "web_search_options": _unserved(),
    "metadata": _ignored,
    "parallel_tool_calls": _ignored,
    "prompt_cache_key": _ignored,
    "prompt_cache_retention": _ignored,
    "safety_identifier": _ignored,
    "service_tier": _ignored,
    "store": _ignored,
    "stream_options": _ignored,
    "user": _ignored,
}


def read_sampling(
    values: Mapping[str, Any], fields: Mapping[str, Check]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the SamplingParams fields that `values` sets, and what `fields` does not know.

    A field that is null is not set. Raises LineError.
    """
    known: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in values.items():
        check = fields.get(name)
        if check is None:
            unknown[name] = value
        elif value is not None and (checked := check(name, value)) is not UNSET:
            known[name] = checked
    if "max_completion_tokens" in known:
        limit = known.pop("max_completion_tokens")
        if known.setdefault("max_tokens", limit) != limit:
            raise LineError(
                "invalid_value",
                "'max_tokens' and 'max_completion_tokens' differ: give one of them.",
                "max_completion_tokens",
            )
    return known, unknown


def suggestion(name: str, fields: Mapping[str, Check]) -> str:
    """Return ' Did you mean …?' where a known field is spelled nearly so, else ''."""
    close = get_close_matches(name[:_COMPARED], fields, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
