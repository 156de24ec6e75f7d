"""The endpoint of a stored line, read without a look at its prompt."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from batchgen.core.endpoints import CHAT, COMPLETIONS

_NOTHING: Final = b"null"


class _Head(msgspec.Struct):
    url: Any = None
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    prompt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decoder: msgspec.json.Decoder[_Head] = msgspec.json.Decoder(_Head)


def plain_endpoint(raw: bytes) -> str | None:
    """Return the endpoint of a line that a job without `columns` has answered.

    None means that only LineParser can tell: the line is none of a chat or a completion, or cannot
    be read.
    """
    try:
        head = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if head.messages is msgspec.UNSET and head.prompt is msgspec.UNSET:
        return head.url if head.url in (CHAT, COMPLETIONS) else None
    is_chat = head.messages is not msgspec.UNSET and bytes(head.messages) != _NOTHING
    return CHAT if is_chat else COMPLETIONS
