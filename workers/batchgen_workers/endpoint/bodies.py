"""The request of a row to an endpoint, in the words of its dialect.

    GenerationRequest ──► Question(path, body)        messages: /chat/completions
                     └──► RowError                    prompt:   /completions

Every parameter that the dialect takes is sent with its value here, because servers have other
defaults. A parameter that it does not take makes the row an error, never an answer without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from batchgen.core.dialects import Dialect
from batchgen.core.params import SamplingParams
from batchgen.core.rows import GenerationRequest, RowError
from batchgen.endpoints.server import CHAT, COMPLETION
from batchgen.models.endpoint import Endpoint
from batchgen.requests.dialect_rules import check_dialect, check_raw_prompt
from batchgen.requests.values.line_error import LineError

LARGEST_SEED = 0x7FFF_FFFF  # llama.cpp keeps 32 bits of a seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request: the path below the base URL, and the body."""

    path: str
    body: bytes

    def __repr__(self) -> str:  # prompts are user data: never in a log
        return f"Question({self.path}, {len(self.body)} bytes)"


def question_of(request: GenerationRequest, endpoint: Endpoint) -> Question | RowError:
    """Return the request of a row, or the error of a row that the dialect cannot be asked."""
    params, dialect = request.params, endpoint.dialect
    is_chat = request.messages is not None
    try:
        check_dialect(params, dialect)
        if not is_chat:
            check_raw_prompt(params, dialect)
    except LineError as error:
        return error.error
    fields: dict[str, Any] = {"model": endpoint.served_model}
    if request.messages is not None:
        fields["messages"] = [_message(message) for message in request.messages]
    else:
        fields["prompt"] = request.prompt_token_ids or request.prompt
    fields |= _common(params, dialect) | _form(params, dialect, is_chat=is_chat)
    return Question(path=CHAT if is_chat else COMPLETION, body=msgspec.json.encode(fields))


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message in OpenAI's form, in which arguments of calls are text."""
    if not message.get("tool_calls"):
        return message
    return {**message, "tool_calls": [_call(call) for call in message["tool_calls"]]}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    text = msgspec.json.encode(function["arguments"]).decode()
    return {**call, "function": {**function, "arguments": text}}


def _common(params: SamplingParams, dialect: Dialect) -> dict[str, Any]:
    """Return the parameters that a chat and a raw prompt name alike."""
    fields = _set(params, ("presence_penalty", "frequency_penalty", "n", "min_tokens"))
    fields |= _set(params, ("ignore_eos", "return_token_ids", "prompt_logprobs"))
    if params.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    for name in ("stop", "stop_token_ids", "allowed_token_ids"):
        if values := getattr(params, name):
            fields[name] = list(values)
    if not params.greedy:
        fields["seed"] = _seed(params.seed, dialect)
    return fields | _samplers(params, dialect)


def _samplers(params: SamplingParams, dialect: Dialect) -> dict[str, Any]:
    if dialect is Dialect.OPENAI:  # whose defaults are ours; some models refuse any value
        return _set(params, ("temperature", "top_p"))
    in_llama_cpp = dialect is Dialect.LLAMA_CPP
    repetition = "repeat_penalty" if in_llama_cpp else "repetition_penalty"
    return {
        "temperature": params.temperature,
        "top_p": params.top_p,
        # no limit is 0 to llama.cpp, which refuses -1, and -1 to the others
        "top_k": params.top_k or (0 if in_llama_cpp else -1),
        "min_p": params.min_p,
        repetition: params.repetition_penalty,
    }


def _form(params: SamplingParams, dialect: Dialect, *, is_chat: bool) -> dict[str, Any]:
    """Return the parameters that a chat and a raw prompt name differently."""
    fields: dict[str, Any] = {}
    if params.max_tokens is not None:
        fields["max_tokens"] = params.max_tokens
    elif not is_chat:
        fields["max_tokens"] = None  # without it an answer to a raw prompt has 16 tokens
    if params.logprobs and is_chat:
        fields |= {"logprobs": True, "top_logprobs": params.top_logprobs}
    elif params.logprobs:
        fields["logprobs"] = params.top_logprobs
    if params.json_schema is not None:
        fields |= _schema(params.json_schema, dialect, is_chat=is_chat)
    if params.regex is not None:
        in_vllm = dialect is Dialect.VLLM
        fields |= (
            {"structured_outputs": {"regex": params.regex}} if in_vllm else {"regex": params.regex}
        )
    return fields


def _schema(text: str, dialect: Dialect, *, is_chat: bool) -> dict[str, Any]:
    schema = msgspec.Raw(text.encode())
    if dialect is Dialect.SGLANG and not is_chat:
        return {"json_schema": text}
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _seed(seed: int | None, dialect: Dialect) -> int | None:
    return seed & LARGEST_SEED if seed and dialect is Dialect.LLAMA_CPP else seed


_DEFAULTS = SamplingParams()


def _set(params: SamplingParams, names: Sequence[str]) -> dict[str, Any]:
    """Return those parameters that have not their default."""
    values = {name: getattr(params, name) for name in names}
    return {name: value for name, value in values.items() if value != getattr(_DEFAULTS, name)}
