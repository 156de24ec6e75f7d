"""Text to tokens and back: chat templates, raw prompts, stop strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import llguidance.hf
import transformers
from llguidance import LLTokenizer

from batchgen.engine.loading import LOADING_ERRORS, LOCAL, not_loaded
from batchgen.io.rows import GenerationRequest, RowError
from batchgen.models.chat import Chat, NotRendered
from batchgen.models.templates import ChatTemplate, TemplateFailed

PARTIAL = 32  # tokens in a row that end inside a character; then there is none
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # how a decoder shows bytes that are no character yet

Decode = Callable[[Sequence[int]], str]


class Tokenizer:
    """The tokenizer and the chat template of one model folder."""

    def __init__(self, path: Path) -> None:
        """Load from `path`; raise UnsupportedModel where there is no tokenizer to load."""
        try:
            self.backend: Any = transformers.AutoTokenizer.from_pretrained(path, **LOCAL)
        except LOADING_ERRORS as error:
            raise not_loaded(f"The tokenizer in {path} cannot be loaded", error) from error

    @property
    def eos_token_id(self) -> int | None:
        """The id that the tokenizer says ends a text."""
        eos: int | None = self.backend.eos_token_id
        return eos

    def encode(self, request: GenerationRequest) -> list[int] | RowError:
        """Return the prompt of `request` as token ids, or why there is none."""
        if request.prompt_token_ids is not None:
            return list(request.prompt_token_ids)
        if request.messages is None:
            return self._ids(request.prompt or "", special=True, param="prompt")
        if not self.backend.chat_template:
            return RowError(
                code="no_chat_template",
                message="This model has no chat template: send `prompt` instead of `messages`.",
                param="messages",
            )
        try:
            text = self.chat.render(request.messages)
        except NotRendered as error:
            message = f"The model's chat template cannot ask this: {error}."
            return RowError(
                code="template_error", message=message, param=f"messages[{error.index}]"
            )
        except (TemplateFailed, ValueError) as error:
            message = f"The model's chat template refuses these messages: {error}"
            return RowError(code="template_error", message=message, param="messages")
        # The template wrote its special tokens itself.
        return self._ids(text, special=False, param="messages")

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        text: str = self.backend.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that a token id stands for: a part of a character, perhaps.

        An id that only the model has, not the tokenizer, stands for none. Where a vocabulary does
        not tell bytes, they are those of the token's text.
        """
        name = self.backend.convert_ids_to_tokens(token) if token < self._size else None
        if name is None:
            return b""
        if self._tokens is None or token >= self._tokens.vocab_size:
            text: str = self.backend.decode([token], clean_up_tokenization_spaces=False)
            return text.encode()
        data = self._tokens.decode_bytes([token])
        # The library marks special tokens by a first byte 0xFF, and takes off a token's own.
        marked = self._tokens.is_special_token(token) and data != name.encode()
        return b"\xff" + data if marked else data

    @cached_property
    def chat(self) -> Chat:
        """The chat template; only where there is one."""
        template = ChatTemplate(self.backend.get_chat_template())
        return Chat(template, self.backend.special_tokens_map)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the chat template, found out by asking it."""
        if not self.backend.chat_template:
            return ()
        if not self.chat.renders("user") and not self.chat.renders("system", "user"):
            return ("the chat template renders no text of a user: only raw prompts are answered",)
        if not self.chat.renders("system", "user"):
            return ("the chat template renders no system message: rows with one are refused",)
        return ()

    @cached_property
    def _size(self) -> int:
        # There may be gaps: the library looks at as many ids as there are tokens.
        ids: dict[str, int] = self.backend.get_vocab()
        return 1 + max(ids.values())

    @cached_property
    def _tokens(self) -> LLTokenizer | None:
        # It knows how byte-level, byte-fallback and sentencepiece vocabularies write bytes.
        try:
            return llguidance.hf.from_tokenizer(self.backend, slices=[])
        except ValueError:  # written in Python, or of a kind that never has parts of characters
            return None

    def _ids(self, text: str, *, special: bool, param: str) -> list[int] | RowError:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = (
                f"The prompt holds half of a surrogate pair, which is no text: {error.reason}."
            )
            return RowError(code="invalid_text", message=message, param=param)
        ids: list[int] = self.backend(text, add_special_tokens=special)["input_ids"]
        return ids


class StopScanner:
    """The text of one answer as its tokens come, searched for stop strings.

        text   … already searched …│ piece          a stop string may begin in the last
                            └ reach ┘               `reach` characters of what was searched

    A token may hold part of a character, or one stop string's end and another's beginning; so the
    text is searched, not the tokens.
    """

    def __init__(self, decode: Decode, stop: Sequence[str]) -> None:
        self._decode = decode
        self._stop = stop
        self._reach = max(map(len, stop)) - 1
        self._ids: list[int] = []
        # ids[start:end] are decoded again for context, as a token's text depends on those before.
        self._start = self._end = 0
        self._context = ""
        self._text = ""
        self._from = 0  # no stop string that begins before this character counts

    def fork(self) -> StopScanner:
        """Return a scanner that goes on from here on its own."""
        other = copy(self)
        other._ids = self._ids.copy()
        return other

    def push(self, token: int, *, counts: bool = True) -> str | None:
        """Take the next token; return the answer where a stop string ended it, without it.

        Where a token does not count, no stop string that begins up to it ends the answer.
        """
        self._ids.append(token)
        window = self._decode(self._ids[self._start :])
        held = len(self._ids) - self._end <= PARTIAL and window.endswith(INCOMPLETE)
        if held or len(window) <= len(self._context):
            return None
        searched = len(self._text)
        self._text += window[len(self._context) :]
        self._start, self._end = self._end, len(self._ids)
        self._context = self._decode(self._ids[self._start : self._end])
        if not counts:
            self._from = len(self._text)
            return None
        return self._cut(self._text, searched)

    def finish(self) -> str:
        """Return the whole answer; what was held back is as whole as it gets."""
        whole = self._decode(self._ids)
        cut = self._cut(whole, len(self._text))
        return whole if cut is None else cut

    def _cut(self, text: str, searched: int) -> str | None:
        """Return `text` up to its first stop string, None if there is none."""
        start = max(self._from, searched - self._reach)
        found = [at for at in (text.find(s, start) for s in self._stop) if at >= 0]
        return text[: min(found)] if found else None
