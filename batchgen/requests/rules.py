"""Rules for the parameters of a row together, after the job's defaults are added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchgen.core.params import SamplingParams
from batchgen.requests.values.line_error import LineError


def filled(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> SamplingParams:
    """Return the parameters of a row that sets `own`; `defaults` are the job's.

    A row's grammar replaces the job's, also one of another kind. A row that turns `logprobs` off
    also removes the job's `top_logprobs`.
    """
    values = {**defaults, **own}
    if "json_schema" in own or "regex" in own:
        values["json_schema"], values["regex"] = own.get("json_schema"), own.get("regex")
    if own.get("logprobs") is False:
        values["top_logprobs"] = own.get("top_logprobs", 0)
    return SamplingParams(**values)


def check_together(params: SamplingParams, context: int | None = None) -> None:
    """Raise LineError if parameters contradict each other or exceed the context, in tokens.

    `context` is None if it is not known.
    """
    if params.n > params.num_beams > 1:
        _refuse("n", f"'n' is {params.n}, of {params.num_beams} beams: ask for fewer answers.")
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        _refuse("min_tokens", "'min_tokens' is above 'max_tokens': lower it.")
    if params.top_logprobs and not params.logprobs:
        _refuse("top_logprobs", "'top_logprobs' needs 'logprobs': set it to true.")
    if params.json_schema is not None and params.regex is not None:
        _refuse("regex", "Two grammars are given, a JSON schema and 'regex': keep one.")
    if context is not None:
        _check_length(params, context)


def _check_length(params: SamplingParams, context: int) -> None:
    name = "min_tokens" if params.max_tokens is None else "max_tokens"
    asked = params.min_tokens if params.max_tokens is None else params.max_tokens
    if asked >= context:  # a prompt has at least one token
        raise LineError(
            "context_length_exceeded",
            f"This model's maximum context length is {context} tokens, prompt and answer together. "
            f"However, '{name}' asks for {asked} in the answer: lower it.",
            name,
        )


def _refuse(name: str, message: str) -> None:
    raise LineError("invalid_value", message, name)
