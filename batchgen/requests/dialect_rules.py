"""The parameters that an endpoint of each dialect takes.

A server of OpenAI's API often ignores a field that it does not know. So a row that sets a parameter
which its dialect does not take is refused by name; it is never sent without that parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import fields

from batchgen.core.dialects import Dialect
from batchgen.core.params import SamplingParams
from batchgen.requests.values.line_error import LineError

_OPENAI: Final = frozenset(
    {
        *("max_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty"),
        *("logit_bias", "seed", "stop", "n", "logprobs", "top_logprobs", "json_schema"),
    }
)
_SAMPLERS: Final = frozenset({"top_k", "min_p", "repetition_penalty"})
_SGLANG: Final = _OPENAI | _SAMPLERS | {"min_tokens", "stop_token_ids", "ignore_eos", "regex"}
#: {dialect: the parameters of SamplingParams that it takes}
TAKEN: Final[Mapping[Dialect, frozenset[str]]] = {
    Dialect.OPENAI: _OPENAI,
    Dialect.VLLM: _SGLANG | {"allowed_token_ids", "prompt_logprobs", "return_token_ids"},
    Dialect.SGLANG: _SGLANG,
    Dialect.LLAMA_CPP: (_OPENAI | _SAMPLERS) - {"n"},
}
#: Parameters that a dialect takes in a chat, but not for a raw prompt.
CHAT_ONLY: Final[Mapping[Dialect, frozenset[str]]] = {
    Dialect.OPENAI: frozenset({"json_schema"}),
    Dialect.VLLM: frozenset(),
    Dialect.SGLANG: frozenset(),
    Dialect.LLAMA_CPP: frozenset({"json_schema"}),
}
#: Dialects whose answers to a raw prompt end after 16 tokens unless `max_tokens` is set.
NEEDS_MAX_TOKENS: Final = frozenset({Dialect.OPENAI, Dialect.SGLANG})

_DEFAULTS: Final[Mapping[str, Any]] = {
    field.name: getattr(SamplingParams(), field.name) for field in fields(SamplingParams)
}


def untaken(dialect: Dialect) -> frozenset[str]:
    """Return the parameters that a dialect does not take."""
    return frozenset(_DEFAULTS) - TAKEN[dialect]


def check_dialect(params: SamplingParams, dialect: Dialect) -> None:
    """Raise LineError for the first parameter that is set and that the dialect does not take."""
    _refuse_any(params, untaken(dialect), f"{dialect} endpoints do not take it: remove it.")


def check_raw_prompt(params: SamplingParams, dialect: Dialect) -> None:
    """Raise LineError if the dialect cannot answer a raw prompt with these parameters."""
    chats = f"{dialect} endpoints take it for 'messages' only: remove it, or ask in a chat."
    _refuse_any(params, CHAT_ONLY[dialect], chats)
    if params.max_tokens is None and dialect in NEEDS_MAX_TOKENS:
        raise LineError(
            "missing_required_parameter",
            f"'max_tokens' is missing: {dialect} endpoints end the answer to a raw prompt after 16 "
            "tokens without it.",
            "max_tokens",
        )


def _refuse_any(params: SamplingParams, names: frozenset[str], reason: str) -> None:
    for name in sorted(names):
        if getattr(params, name) != _DEFAULTS[name]:
            raise LineError("unsupported_parameter", f"'{name}' is not served: {reason}", name)
