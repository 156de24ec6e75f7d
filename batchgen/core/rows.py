"""The forms of a row: as read, as a request to the engine, as answered.

input line ──► InputRow ──► GenerationRequest ──► Generation ──► ResultRow ──► Parquet
              (identity)    (what the engine      (what it       (identity and
                             needs, no more)       returns)       answer again)
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchgen.core.endpoints import CHAT, COMPLETIONS, RESPONSES
from batchgen.core.params import SamplingParams

FinishReason = Literal["stop", "length"]


class RowError(msgspec.Struct, frozen=True, kw_only=True):
    """The reason why a row has no answer, with OpenAI's code where OpenAI has one."""

    code: str
    message: str
    # The field at fault, OpenAI's path (`messages`, `max_tokens`).
    param: str | None = None


class InputRow(msgspec.Struct, frozen=True, kw_only=True):
    """One checked input line. Exactly one of `messages`, `prompt`, `prompt_token_ids` is set."""

    # 0-based number of the record in the input file; it identifies the result.
    row: int
    # As given, or `row-<n>`.
    custom_id: str
    params: SamplingParams
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    prompt_token_ids: list[int] | None = None
    # The other fields of the line, carried to the output; {} when there are none.
    extra: dict[str, Any] = {}
    # The model that the line names, if it is not the job's; the job's model answers the row.
    other_model: str | None = None
    # The fields of the request that its answer repeats; None unless it is for /v1/responses.
    echo: dict[str, Any] | None = None

    @property
    def endpoint(self) -> str:
        """The endpoint of OpenAI that answers such a row."""
        if self.echo is not None:
            return RESPONSES
        return COMPLETIONS if self.messages is None else CHAT

    def __repr__(self) -> str:  # prompts are user data: never in a log
        return f"InputRow(row={self.row}, custom_id={self.custom_id!r})"


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One input line that is no valid request; it becomes an error row."""

    row: int
    custom_id: str
    error: RowError


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to the engine. Exactly one of messages, prompt, prompt_token_ids is set."""

    # Unique among the requests in flight; chosen by the caller.
    key: int
    params: SamplingParams
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    prompt_token_ids: list[int] | None = None
    # The job of the row. The engine learns answer lengths and keeps a common prefix per job.
    job: str = ""
    # Prompts share cached blocks only with prompts of the same salt.
    cache_salt: str = ""

    def __repr__(self) -> str:
        return f"GenerationRequest(key={self.key})"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a row."""

    index: int
    text: str
    finish_reason: FinishReason
    # Beam score, or the cumulative log-probability of the tokens.
    score: float | None = None
    # Only when asked for.
    tokens: list[int] | None = None
    # OpenAI's JSON, only when asked for.
    logprobs: str | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one row."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class KVUse(msgspec.Struct, frozen=True, kw_only=True):
    """The use of the KV pool by one row, and the state of the pool while the row ran."""

    # Times that the row was preempted.
    preemptions: int = 0
    # Blocks copied on write for it.
    copies: int = 0
    # Means over the steps of the row's life, for the whole engine, 0 to 1: filled slots over slots
    # of the blocks in use; and 1 - blocks in use over the blocks needed without sharing.
    utilisation: float = 0.0
    sharing_saving: float = 0.0


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's result for one request: choices, best first, or an error."""

    key: int
    choices: list[Choice] = []
    usage: Usage | None = None
    error: RowError | None = None
    # Milliseconds from the engine's receipt of the request to its end, and to its first token.
    latency_ms: int = 0
    first_token_ms: int | None = None
    # None where the engine never computed the request.
    kv: KVUse | None = None

    def __repr__(self) -> str:
        return f"Generation(key={self.key}, error={self.error and self.error.code})"


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the dataset, before it is converted to Arrow. `error` is None on success."""

    row: int
    custom_id: str
    model: str
    choices: list[Choice] = []
    usage: Usage | None = None
    error: RowError | None = None
    request_id: str
    # Claims of the shard so far, including this one; 1 unless an earlier attempt was lost.
    attempt: int
    seed: int | None = None
    # Microseconds since the epoch, UTC.
    created_at: int
    latency_ms: int = 0
    # JSON text of the input line's other fields; None where there were none.
    extra: str | None = None
