"""The fields of a request to /v1/responses, beside `model`, `input` and `instructions`.

Each request stands alone: what refers to an earlier response, or asks to keep this one, is
refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import UNSET

from batchgen.requests.fields import ALIASES, SAMPLING, ignored
from batchgen.requests.unserved import UNSERVED, renamed_to, unserved
from batchgen.requests.values.checks import Check, Sets
from batchgen.requests.values.grammars import ANY_OBJECT, check_object, read_schema
from batchgen.requests.values.line_error import LineError

LOGPROBS: Final = "message.output_text.logprobs"

# Accepted in `include`. A model here has no hidden reasoning, so there is none to encrypt.
_INCLUDED: Final = (LOGPROBS, "reasoning.encrypted_content")
_FORMAT_FIELDS: Final = frozenset({"type", "name", "description", "schema", "strict"})
_ALONE: Final = "each row stands alone: write the whole conversation into 'input'"
_KEPT: Final = "it must be false or absent, as answers are kept in the output of the job alone"

_verbosity = unserved("medium")


def _max_output_tokens(name: str, value: Any) -> Sets:
    return Sets(max_tokens=SAMPLING["max_tokens"].check(name, value))


def _top_logprobs(name: str, value: Any) -> Sets:
    """Read a number of alternatives; a number above 0 also asks for log-probabilities."""
    count = SAMPLING["top_logprobs"].check(name, value)
    return Sets(logprobs=True, top_logprobs=count) if count else Sets(top_logprobs=0)


def _include(name: str, value: Any) -> Any:
    if type(value) is not list:
        raise LineError("invalid_type", f"'{name}' must be a list of texts.", name)
    for each in value:
        if each not in _INCLUDED:
            served = " and ".join(_INCLUDED)
            message = f"'{name}' may hold {served} only: remove the others."
            raise LineError("unsupported_parameter", message, name)
    return Sets(logprobs=True) if LOGPROBS in value else UNSET


def _text(name: str, value: Any) -> Any:
    """Read `text`: `{"format": …}` sets the grammar of the answer."""
    check_object(name, value, frozenset({"format", "verbosity"}))
    if value.get("verbosity") is not None:
        _verbosity(f"{name}.verbosity", value["verbosity"])
    if value.get("format") is None:
        return UNSET
    return _format(f"{name}.format", value["format"])


def _format(name: str, value: Any) -> Sets:
    """Read a format: a chat's `response_format`, with the schema one level higher."""
    check_object(name, value, _FORMAT_FIELDS)
    kind = value.get("type")
    if kind == "json_schema":
        if value.get("schema") is None:
            message = f"'{name}.schema' is missing."
            raise LineError("missing_required_parameter", message, f"{name}.schema")
        return Sets(json_schema=read_schema(f"{name}.schema", value["schema"]))
    if kind == "json_object":
        return Sets(json_schema=ANY_OBJECT)
    if kind == "text":
        return Sets(json_schema=None)
    kinds = "text, json_object or json_schema"
    raise LineError("invalid_value", f"'{name}.type' must be {kinds}.", f"{name}.type")


def _reasoning(name: str, value: Any) -> Any:
    if type(value) is not dict:
        raise LineError("invalid_type", f"'{name}' must be an object.", name)
    for field, held in value.items():
        if held is not None and (field, held) != ("effort", "none"):
            message = f"'{name}' is not served: no model here has an effort of reasoning."
            raise LineError("unsupported_parameter", message, name)
    return UNSET


def _metadata(name: str, value: Any) -> Any:
    if type(value) is not dict or not all(type(each) is str for each in value.values()):
        raise LineError("invalid_type", f"'{name}' must be an object of texts.", name)
    return UNSET


# Parameters of a chat that have another name in a response.
_RENAMED: Final[Mapping[str, Check]] = {
    "logprobs": renamed_to("top_logprobs", False),
    "max_completion_tokens": renamed_to("max_output_tokens"),
    "max_tokens": renamed_to("max_output_tokens"),
    "messages": renamed_to("input"),
    "reasoning_effort": renamed_to("reasoning.effort", "none"),
    "response_format": renamed_to("text.format"),
    "verbosity": renamed_to("text.verbosity"),
}
_STATEFUL: Final[Mapping[str, Check]] = {
    "background": unserved(False, remedy="a batch runs in the background anyway"),
    "background_options": unserved({}),
    "context_management": unserved([]),
    "conversation": unserved(remedy=_ALONE),
    "previous_response_id": unserved(remedy=_ALONE),
    "prompt": unserved(remedy="write the text that it names into 'input'"),
    "store": unserved(False, remedy=_KEPT),
}
_UNSERVED: Final[Mapping[str, Check]] = {
    "access_programs": unserved(),
    "image": unserved(),
    "moderation": unserved(),
    "n": unserved(1, remedy="a response is one answer"),
    "num_return_sequences": unserved(1, remedy="a response is one answer"),
    "tool_choice": unserved("none", "auto"),
    "truncation": unserved("disabled", remedy="an input that is too long is an error row"),
}
_IGNORED: Final = (
    "max_tool_calls",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "stream_options",
    "user",
)

#: Every field that is known, beside `model`, `input` and `instructions`.
RESPONSE_FIELDS: Final[Mapping[str, Check]] = {
    **{name: field.check for name, field in SAMPLING.items()},
    **ALIASES,
    **UNSERVED,
    **_RENAMED,
    **_STATEFUL,
    **_UNSERVED,
    **dict.fromkeys(_IGNORED, ignored),
    "include": _include,
    "max_output_tokens": _max_output_tokens,
    "metadata": _metadata,
    "reasoning": _reasoning,
    "text": _text,
    "top_logprobs": _top_logprobs,
}
