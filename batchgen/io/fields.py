"""Sampling fields by name: what each may hold, which are not served, which change nothing.

field name ──► check(name, value) ──► the value as SamplingParams wants it
                                 ──► Sets: values of parameters of other names
                                 ──► UNSET: accepted, and nothing to do
                                 ──► LineError: wrong type, out of bounds, or not served

What several fields may be together is for `batchgen.io.rules`, once the job's are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from msgspec import UNSET

from batchgen.io.checks import (
    EARLY_STOPPING,
    FLAG,
    LOGIT_BIAS,
    STOP,
    Check,
    Field,
    Sets,
    number,
    token_ids,
    whole,
)
from batchgen.io.grammars import REGEX, SCHEMA, read_response_format, read_structured_outputs
from batchgen.io.line_error import LineError

MAX_TOKENS: Final = 1 << 20  # longer than any context a model here has
MAX_TOP_K: Final = (1 << 31) - 1
MAX_SAMPLES: Final = 128
MAX_BEAMS: Final = 64
MAX_ALTERNATIVES: Final = 20  # of a token, with their log-probabilities
MAX_PENALTY: Final = 2
MAX_REPETITION_PENALTY: Final = 10
MAX_LENGTH_PENALTY: Final = 10
MAX_ALLOWED_TOKENS: Final = 1 << 16
MAX_STOP_TOKENS: Final = 128
_COMPARED: Final = 64  # characters of a name that are looked at for a suggestion

_MAX_TOKENS = whole(1, MAX_TOKENS)
_SAMPLES = whole(1, MAX_SAMPLES)
_ALTERNATIVES = whole(0, MAX_ALTERNATIVES)
_PENALTY = number(-MAX_PENALTY, MAX_PENALTY)
_TOP_K = whole(-1, MAX_TOP_K)


def _top_k(name: str, value: Any) -> int:
    # vLLM's -1 and our 0 both keep every token.
    return max(0, int(_TOP_K.check(name, value)))


def _logprobs(name: str, value: Any) -> Any:
    """Read OpenAI's older form, the number of alternatives, beside the newer one."""
    if type(value) is bool:
        return value
    return Sets(logprobs=True, top_logprobs=_ALTERNATIVES.check(name, value))


def _chat_logprobs(name: str, value: Any) -> bool:
    if type(value) is int:
        message = f"'{name}' must be true or false: the number is called 'top_logprobs' in a chat."
        raise LineError("invalid_type", message, name)
    return bool(FLAG.check(name, value))


def _also(parameter: str, field: Field) -> Check:
    """Return a check for another name of a parameter."""

    def check(name: str, value: Any) -> Sets:
        return Sets({parameter: field.check(name, value)})

    return check


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


def _called(ours: str, *neutral: Any) -> Check:
    """Return a check for another system's name of a field that is served."""

    def check(name: str, value: Any) -> Any:
        if value in neutral:
            return UNSET
        raise LineError("unknown_parameter", f"'{name}' is called '{ours}' here: rename it.", name)

    return check


def _ignored(name: str, value: Any) -> Any:
    return UNSET


#: Every parameter of SamplingParams.
SAMPLING: Final[Mapping[str, Field]] = {
    "max_tokens": _MAX_TOKENS,
    "temperature": number(0, 2),
    "top_p": number(0, 1, above=True),
    "top_k": Field(check=_top_k, kind=_TOP_K.kind, bounds=_TOP_K.bounds),
    "min_p": number(0, 1),
    "repetition_penalty": number(0, MAX_REPETITION_PENALTY, above=True),
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "logit_bias": LOGIT_BIAS,
    "allowed_token_ids": token_ids(1, MAX_ALLOWED_TOKENS),
    "seed": whole(-(1 << 63), (1 << 63) - 1),
    "min_tokens": whole(0, MAX_TOKENS),
    "stop": STOP,
    "stop_token_ids": token_ids(0, MAX_STOP_TOKENS),
    "ignore_eos": FLAG,
    "n": _SAMPLES,
    "num_beams": whole(1, MAX_BEAMS),
    "length_penalty": number(-MAX_LENGTH_PENALTY, MAX_LENGTH_PENALTY),
    "early_stopping": EARLY_STOPPING,
    "logprobs": Field(
        check=_logprobs, kind="true or false, or a number: see below", bounds=_ALTERNATIVES.bounds
    ),
    "top_logprobs": _ALTERNATIVES,
    "prompt_logprobs": _ALTERNATIVES,
    "json_schema": SCHEMA,
    "regex": REGEX,
    "return_token_ids": FLAG,
}
#: Other systems' names and forms of them.
ALIASES: Final[Mapping[str, Check]] = {
    "max_completion_tokens": _also("max_tokens", _MAX_TOKENS),
    "num_return_sequences": _also("n", _SAMPLES),
    "guided_json": _also("json_schema", SCHEMA),
    "guided_regex": _also("regex", REGEX),
    "response_format": read_response_format,
    "structured_outputs": read_structured_outputs,
}
_UNSERVED: Final[Mapping[str, Check]] = {
    "bad_words": _unserved([]),
    "best_of": _unserved(1),
    "function_call": _unserved("none"),
    "functions": _unserved([]),
    "guided_choice": _unserved(),
    "guided_grammar": _unserved(),
    "stream": _stream,
    "tool_choice": _unserved("none"),
    "tools": _unserved([]),
    "max_new_tokens": _called("max_tokens"),
    "max_output_tokens": _called("max_tokens"),
    "stop_sequences": _called("stop"),
    "use_beam_search": _called("num_beams", False),
}
# The fields of a shorthand line and of --param. Whatever else a shorthand line holds is the
# caller's own data, so only names that can mean nothing but sampling are listed.
SHORTHAND_FIELDS: Final[Mapping[str, Check]] = {
    **{name: field.check for name, field in SAMPLING.items()},
    **ALIASES,
    **_UNSERVED,
}
# The fields of an OpenAI request body, beside `prompt` and `model`.
COMPLETION_FIELDS: Final[Mapping[str, Check]] = {
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
# The same beside `messages`.
CHAT_FIELDS: Final[Mapping[str, Check]] = {**COMPLETION_FIELDS, "logprobs": _chat_logprobs}


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
            if type(checked) is Sets:
                for parameter, each in checked.items():
                    _set(known, parameter, each, name)
            else:
                _set(known, name, checked, name)
    return known, unknown


def _set(known: dict[str, Any], parameter: str, value: Any, name: str) -> None:
    """Note what the field `name` sets; another field may have said the same."""
    former = known.setdefault(parameter, value)
    if former is None:
        known[parameter] = value
    elif value is not None and former is not value and former != value:
        raise LineError(
            "invalid_value",
            f"'{parameter}' gets different values from '{name}' and another name of it: "
            "give one of them.",
            name,
        )


def suggestion(name: str, fields: Iterable[str]) -> str:
    """Return ' Did you mean …?' where a known field is spelled nearly so, else ''."""
    close = get_close_matches(name[:_COMPARED], fields, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
