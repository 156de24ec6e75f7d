"""Log-probabilities of a choice as OpenAI's endpoints give them.

The engine's JSON is a chat's, with the prompt's beside it; an entry is one token:

    {"content": [{"token", "logprob", "bytes", "top_logprobs": [{"token", "logprob", "bytes"}]}],
     "refusal": null, "prompt": [null, {entry}, …]}
"""

from __future__ import annotations

import codecs
from typing import Any, Final

import msgspec

_PROMPT: Final = "prompt"


def chat_logprobs(text: str | None) -> tuple[dict[str, Any] | None, list[Any] | None]:
    """Return a choice's `logprobs` in a chat and its `prompt_logprobs`, None where not asked for.

    OpenAI has no prompt ones: they are entries of the same kind, null for the first token.
    """
    if text is None:
        return None, None
    found: dict[str, Any] = msgspec.json.decode(text)
    prompt = found.pop(_PROMPT, None)
    return (found if found.get("content") is not None else None), prompt


def completion_logprobs(
    text: str | None, answer: str
) -> tuple[dict[str, Any] | None, list[Any] | None]:
    """Return the same for a completion: `logprobs` in OpenAI's older form.

    `text_offset` counts the characters of `answer` before each token; what a stop string cut off
    lies at its end.
    """
    chat, prompt = chat_logprobs(text)
    if chat is None:
        return None, prompt
    entries = chat["content"]
    return {
        "tokens": [_name(entry) for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": _tops(entries),
        "text_offset": _offsets(entries, len(answer)),
    }, prompt


def _name(entry: dict[str, Any]) -> str:
    """Return a token's text, or its bytes in OpenAI's notation where they are no whole text."""
    if entry["bytes"] is not None:
        try:
            bytes(entry["bytes"]).decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry["bytes"])
    return str(entry["token"])


def _tops(entries: list[dict[str, Any]]) -> list[dict[str, float]] | None:
    """Return {token: log-probability} of each place, the token drawn always among them."""
    if not any(entry["top_logprobs"] for entry in entries):
        return None
    tops = []
    for entry in entries:
        top: dict[str, float] = {}
        for each in (*entry["top_logprobs"], entry):
            top.setdefault(_name(each), each["logprob"])
        tops.append(top)
    return tops


def _offsets(entries: list[dict[str, Any]], end: int) -> list[int]:
    offsets, offset = [], 0
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    for entry in entries:
        offsets.append(min(offset, end))
        raw = entry["bytes"]
        offset += len(entry["token"] if raw is None else decoder.decode(bytes(raw)))
    return offsets
