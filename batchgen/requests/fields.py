"""The sampling fields by name, with the check of each.

field name ──► check(name, value) ──► the value as SamplingParams wants it
                                 ──► Sets: values of parameters of other names
                                 ──► UNSET: accepted, sets nothing
                                 ──► LineError: wrong type, out of bounds, or not supported

`batchgen.requests.rules` checks fields together, after the job's defaults are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import UNSET

from batchgen.requests.unserved import UNSERVED, unserved
from batchgen.requests.values.checks import (
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
from batchgen.requests.values.grammars import (
    REGEX,
    SCHEMA,
    read_response_format,
    read_structured_outputs,
)
from batchgen.requests.values.line_error import LineError

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

_MAX_TOKENS = whole(1, MAX_TOKENS)
_SAMPLES = whole(1, MAX_SAMPLES)
_ALTERNATIVES = whole(0, MAX_ALTERNATIVES)
_PENALTY = number(-MAX_PENALTY, MAX_PENALTY)
_TOP_K = whole(-1, MAX_TOP_K)


def _top_k(name: str, value: Any) -> int:
    # vLLM's -1 and our 0 both keep every token.
    return max(0, int(_TOP_K.check(name, value)))


def _logprobs(name: str, value: Any) -> Any:
    """Read `logprobs` as a number of alternatives (OpenAI's older form) or as a bool."""
    if type(value) is bool:
        return value
    return Sets(logprobs=True, top_logprobs=_ALTERNATIVES.check(name, value))


def _chat_logprobs(name: str, value: Any) -> bool:
    if type(value) is int:
        message = f"'{name}' must be true or false: the number is called 'top_logprobs' in a chat."
        raise LineError("invalid_type", message, name)
    return bool(FLAG.check(name, value))


def _alias_of(parameter: str, field: Field) -> Check:
    """Return a check for another name of a parameter."""

    def check(name: str, value: Any) -> Sets:
        return Sets({parameter: field.check(name, value)})

    return check


def ignored(name: str, value: Any) -> Any:
    """Accept a field that changes nothing here."""
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
#: Names and forms that other systems use for the same parameters.
ALIASES: Final[Mapping[str, Check]] = {
    "max_completion_tokens": _alias_of("max_tokens", _MAX_TOKENS),
    "num_return_sequences": _alias_of("n", _SAMPLES),
    "guided_json": _alias_of("json_schema", SCHEMA),
    "guided_regex": _alias_of("regex", REGEX),
    "response_format": read_response_format,
    "structured_outputs": read_structured_outputs,
}
# The fields of a shorthand line and of --param. Every other field of a shorthand line is the
# caller's data, so only names that always mean sampling are listed.
SHORTHAND_FIELDS: Final[Mapping[str, Check]] = {
    **{name: field.check for name, field in SAMPLING.items()},
    **ALIASES,
    **UNSERVED,
}
# The fields of an OpenAI request body, beside `prompt` and `model`.
COMPLETION_FIELDS: Final[Mapping[str, Check]] = {
    **SHORTHAND_FIELDS,
    "prediction": unserved(),  # a column in a shorthand line, where it is usual data
    "metadata": ignored,
    "parallel_tool_calls": ignored,
    "prompt_cache_key": ignored,
    "prompt_cache_retention": ignored,
    "safety_identifier": ignored,
    "service_tier": ignored,
    "store": ignored,
    "stream_options": ignored,
    "user": ignored,
}
# The fields of an OpenAI request body, beside `messages` and `model`.
CHAT_FIELDS: Final[Mapping[str, Check]] = {**COMPLETION_FIELDS, "logprobs": _chat_logprobs}


def read_sampling(
    values: Mapping[str, Any], fields: Mapping[str, Check]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the SamplingParams fields that `values` sets, and the values not in `fields`.

    A field that is null sets nothing. Raises LineError.
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
    """Set a parameter from the field `name`; raise LineError if another field differs."""
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
