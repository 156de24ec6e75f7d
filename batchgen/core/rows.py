"""A row on its way through batchgen: as read, as asked of the engine, as answered.

input line ──► InputRow ──► GenerationRequest ──► Generation ──► ResultRow ──► Parquet
              (identity)    (what the engine      (what it       (identity and
                             needs, no more)       returns)       answer again)
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from batchgen.core.params import SamplingParams

FinishReason = Literal["stop", "length"]


class RowError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a row has no answer: OpenAI's code where it has one."""

    code: str
    message: str
    # The field at fault, OpenAI's path (`messages`, `max_tokens`).
    param: str | None = None


class InputRow(msgspec.Struct, frozen=True, kw_only=True):
    """One input line, checked. One of `messages`, `prompt` and `prompt_token_ids` is set."""

    # 0-based record of the input file: the identity of a result.
    row: int
    # As given, or `row-<n>`.
    custom_id: str
    params: SamplingParams
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    prompt_token_ids: list[int] | None = None
    # The other fields of the line, carried to the output; {} when there are none.
    extra: dict[str, Any] = {}
    # Another model than the job's that the line names; the job's answers it.
    other_model: str | None = None

    def __repr__(self) -> str:  # prompts are user data: never in a log
        return f"InputRow(row={self.row}, custom_id={self.custom_id!r})"


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One input line that cannot be asked; it becomes an error row."""

    row: int
    custom_id: str
    error: RowError


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is asked. Exactly one of messages, prompt and prompt_token_ids is set."""

    # Unique among the requests in flight; chosen by the caller.
    key: int
    params: SamplingParams
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    prompt_token_ids: list[int] | None = None
    # The job it belongs to: answer lengths are learned, and a common prompt prefix kept, per job.
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
    """What a row did to the KV pool, and how the pool fared while it ran."""

    # Times that the row gave up its blocks.
    preemptions: int = 0
    # Blocks copied on write for it.
    copies: int = 0
    # Of the whole engine, mean over the steps of the row's life: filled slots over slots of the
    # blocks in use, and 1 - blocks in use over blocks that would be without sharing; 0 to 1.
    utilisation: float = 0.0
    sharing_saving: float = 0.0


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine returns for one request: choices, best first, or an error."""

    key: int
    choices: list[Choice] = []
    usage: Usage | None = None
    error: RowError | None = None
    # Milliseconds from the engine's first sight of the request to its end.
    latency_ms: int = 0
    # None where the engine never computed the request.
    kv: KVUse | None = None

    def __repr__(self) -> str:
        return f"Generation(key={self.key}, error={self.error and self.error.code})"


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the dataset, before it is Arrow. `error` is None on success."""

    row: int
    custom_id: str
    model: str
    choices: list[Choice] = []
    usage: Usage | None = None
    error: RowError | None = None
    request_id: str
    # Claims of the shard so far, this one included: 1 unless something was lost.
    attempt: int
    seed: int | None = None
    # Microseconds since the epoch, UTC.
    created_at: int
    latency_ms: int = 0
    # JSON text of the input line's other fields; None where there were none.
    extra: str | None = None
