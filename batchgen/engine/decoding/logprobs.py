"""Log-probabilities of tokens under the model's own distribution, and OpenAI's JSON for them.

    {"content": [{"token": " fox", "logprob": -0.3, "bytes": [32, …], "top_logprobs": […]}, …],
     "refusal": null,
     "prompt": [null, {"token": …}, …]}          only if prompt_logprobs is set

The first token of a prompt has no tokens before it, so it has no probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

MOST = 20  # at least so many tokens are ranked, so that ties do not depend on `count`
ROWS = 64  # rows of a prompt computed at a time, to limit the work space
LOWEST = -9999.0  # OpenAI's value for an impossible token; JSON has no infinity

#: Returns the bytes of a token id.
TokenBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopTokens:
    """The likeliest tokens at one position, best first."""

    ids: list[int]
    logprobs: list[float]

    def first(self, count: int) -> TopTokens:
        """Return the first `count` of them."""
        return TopTokens(ids=self.ids[:count], logprobs=self.logprobs[:count])


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """The log-probability of one token, and the likeliest tokens at its position."""

    id: int
    logprob: float
    top: TopTokens


def top_tokens(logprobs: Tensor, count: int) -> list[TopTokens]:
    """Return the `count` likeliest tokens of each row of log-probabilities [N, V].

    The choice between equally likely tokens does not depend on `count`.
    """
    if count == 0:
        return [TopTokens(ids=[], logprobs=[]) for _ in range(len(logprobs))]
    best = logprobs.topk(min(max(count, MOST), logprobs.shape[1]))
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [_ranked(values, ids, count) for values, ids in rows]


def prompt_logprobs(logits: Tensor, tokens: list[int], top: int) -> list[TokenLogprob]:
    """Return the log-probabilities of `tokens` [T] from the float32 logits [T, V] before them."""
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
    """Return OpenAI's JSON text; an argument is None if it was not asked for."""
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
    # A token may hold a part of a character: then the bytes are exact, but the text is not.
    text = data.decode("utf-8", errors="replace")
    return {"token": text, "logprob": max(logprob, LOWEST), "bytes": list(data)}
