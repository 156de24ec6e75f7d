"""What the parameters of a row must be together, once the job's fill what the row leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchgen.core.params import SamplingParams
from batchgen.requests.line_error import LineError


def filled(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> SamplingParams:
    """Return the parameters of a row that sets `own`; `defaults` are the job's.

    A row's grammar stands in for the job's, of whichever kind, and a row that turns `logprobs` off
    is rid of the job's `top_logprobs` too.
    """
    values = {**defaults, **own}
    if "json_schema" in own or "regex" in own:
        values["json_schema"], values["regex"] = own.get("json_schema"), own.get("regex")
    if own.get("logprobs") is False:
        values["top_logprobs"] = own.get("top_logprobs", 0)
    return SamplingParams(**values)


def check_together(params: SamplingParams, context: int | None = None) -> None:
    """Raise LineError where parameters contradict each other or the model's context, in tokens.

    None is a context that is not known.
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
    if asked >= context:  # a prompt has a token at least
        raise LineError(
            "context_length_exceeded",
            f"This model's maximum context length is {context} tokens, prompt and answer together. "
            f"However, '{name}' asks for {asked} in the answer: lower it.",
            name,
        )


def _refuse(name: str, message: str) -> None:
    raise LineError("invalid_value", message, name)
