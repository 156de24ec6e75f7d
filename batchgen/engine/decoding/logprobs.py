"""How likely tokens were under the model's own distribution, and OpenAI's JSON for it.

{"content": [{"token": " fox", "logprob": -0.3, "bytes": [32, …], "top_logprobs": […]}, …],
 "refusal": null,
 "prompt": [null, {"token": …}, …]}          only where prompt_logprobs is set

The first token of a prompt follows nothing, so it has no probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

MOST = 20  # tokens ranked in one place, or more where more are asked for
ROWS = 64  # rows of a prompt judged at a time: bounds the work space
LOWEST = -9999.0  # what OpenAI writes for a token that cannot come; JSON has no infinity

#: Returns the bytes that a token id stands for.
TokenBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopTokens:
    """The likeliest tokens in one place, best first."""

    ids: list[int]
    logprobs: list[float]

    def first(self, count: int) -> TopTokens:
        """Return the first `count` of them."""
        return TopTokens(ids=self.ids[:count], logprobs=self.logprobs[:count])


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """How likely one token was, and which were the likeliest in its place."""

    id: int
    logprob: float
    top: TopTokens


def top_tokens(logprobs: Tensor, count: int) -> list[TopTokens]:
    """Return the `count` likeliest tokens of each row of log-probabilities [N, V].

    Which of equally likely tokens are among them does not depend on `count`.
    """
    if count == 0:
        return [TopTokens(ids=[], logprobs=[]) for _ in range(len(logprobs))]
    best = logprobs.topk(min(max(count, MOST), logprobs.shape[1]))
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [_ranked(values, ids, count) for values, ids in rows]


def prompt_logprobs(logits: Tensor, tokens: list[int], top: int) -> list[TokenLogprob]:
    """Return how likely each of `tokens` was, given the float32 logits [T, V] before it."""
    entries: list[TokenLogprob] = []
    for start in range(0, len(tokens), ROWS):
        chosen = tokens[start : start + ROWS]
        logprobs = logits[start : start + ROWS].log_softmax(-1)
        index = torch.tensor(chosen, device=logits.device)
        values = logprobs.gather(-1, index[:, None])[:, 0].tolist()
        entries += [
            TokenLogprob(id=token, logprob=value, top=likeliest)
            for token, value, likeliest in zip(
                chosen, values, top_tokens(logprobs, top), strict=True
            )
        ]
    return entries


def _ranked(values: list[float], ids: list[int], count: int) -> TopTokens:
    order = sorted(range(len(ids)), key=lambda i: (-values[i], ids[i]))[:count]
    return TopTokens(ids=[ids[i] for i in order], logprobs=[values[i] for i in order])


def to_json(
    content: Sequence[TokenLogprob] | None,
    prompt: Sequence[TokenLogprob] | None,
    token_bytes: TokenBytes,
) -> str:
    """Return OpenAI's JSON text; None is what was not asked for."""
    shown: dict[str, Any] = {
        "content": None if content is None else [_entry(one, token_bytes) for one in content],
        "refusal": None,
    }
    if prompt is not None:
        shown["prompt"] = [None, *(_entry(one, token_bytes) for one in prompt)]
    return msgspec.json.encode(shown).decode()


def _entry(one: TokenLogprob, token_bytes: TokenBytes) -> dict[str, Any]:
    ranked = zip(one.top.ids, one.top.logprobs, strict=True)
    return {
        **_token(one.id, one.logprob, token_bytes),
        "top_logprobs": [_token(token, logprob, token_bytes) for token, logprob in ranked],
    }


def _token(token: int, logprob: float, token_bytes: TokenBytes) -> dict[str, Any]:
    data = token_bytes(token)
    # A token may hold a part of a character: the bytes are exact, the text cannot be.
    text = data.decode("utf-8", errors="replace")
    return {"token": text, "logprob": max(logprob, LOWEST), "bytes": list(data)}
