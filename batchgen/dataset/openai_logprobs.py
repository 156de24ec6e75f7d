"""Log-probabilities of a choice in the form of OpenAI's endpoints.

The engine's JSON has the form of a chat and adds those of the prompt; an entry is one token:

    {"content": [{"token", "logprob", "bytes", "top_logprobs": [{"token", "logprob", "bytes"}]}],
     "refusal": null, "prompt": [null, {entry}, …]}
"""

from __future__ import annotations

import codecs
from typing import Any, Final

import msgspec

_PROMPT: Final = "prompt"


def chat_logprobs(text: str | None) -> tuple[dict[str, Any] | None, list[Any] | None]:
    """Return a choice's `logprobs` in a chat and its `prompt_logprobs`, None if not requested.

    OpenAI has no `prompt_logprobs`. They are entries of the same kind, null for the first token.
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

    `text_offset` is the number of characters of `answer` before each token. Tokens that a stop
    string cut off have the length of `answer`.
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
    """Return a token's text, or OpenAI's notation of its bytes if they are not complete UTF-8."""
    if entry["bytes"] is not None:
        try:
            bytes(entry["bytes"]).decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry["bytes"])
    return str(entry["token"])


def _tops(entries: list[dict[str, Any]]) -> list[dict[str, float]] | None:
    """Return {token: log-probability} for each position, always with the token drawn."""
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
