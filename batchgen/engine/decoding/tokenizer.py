"""Text to tokens and back: chat templates, raw prompts, and the text of answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import llguidance.hf
import transformers
from llguidance import LLTokenizer

from batchgen.core.rows import GenerationRequest, RowError
from batchgen.engine.decoding.stops import INCOMPLETE, StopScanner
from batchgen.engine.network.loading import LOADING_ERRORS, LOCAL, not_loaded
from batchgen.models.chat import Chat, NotRendered
from batchgen.models.templates import ChatTemplate, TemplateFailed

CONTEXT = 6  # prompt tokens with text that are decoded before an answer
CONTEXT_TOKENS = 32  # last prompt tokens that are searched for them


class Tokenizer:
    """The tokenizer and the chat template of one model folder."""

    def __init__(self, path: Path) -> None:
        """Load from `path`; raise UnsupportedModel if no tokenizer can be loaded."""
        try:
            self.backend: Any = transformers.AutoTokenizer.from_pretrained(path, **LOCAL)
        except LOADING_ERRORS as error:
            raise not_loaded(f"The tokenizer in {path} cannot be loaded", error) from error

    @property
    def eos_token_id(self) -> int | None:
        """The tokenizer's end-of-sequence token id, None if it has none."""
        eos: int | None = self.backend.eos_token_id
        return eos

    def encode(self, request: GenerationRequest) -> list[int] | RowError:
        """Return the prompt of `request` as token ids, or the error if there is none."""
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
            message = f"The model's chat template cannot render this chat: {error}."
            return RowError(
                code="template_error", message=message, param=f"messages[{error.index}]"
            )
        except (TemplateFailed, ValueError) as error:
            message = f"The model's chat template refuses these messages: {error}"
            return RowError(code="template_error", message=message, param="messages")
        # The template has already written the special tokens.
        return self._ids(text, special=False, param="messages")

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens."""
        text: str = self.backend.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def decode_all(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, with the names of special tokens."""
        text: str = self.backend.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def context(self, prompt: Sequence[int]) -> list[int]:
        """Return the last tokens of `prompt`; an answer's text is decoded after them.

        Some tokenizers drop the space of a text's first token: `▁Paris` alone is "Paris", but
        after "capital is" it is " Paris". Empty if the prompt has no text or ends inside a
        character.
        """
        start, shown = len(prompt), 0
        while start > max(0, len(prompt) - CONTEXT_TOKENS) and shown < CONTEXT:
            start -= 1
            shown += prompt[start] not in self._special_ids
        before = list(prompt[start:])
        return before if shown and not self.decode(before).endswith(INCOMPLETE) else []

    def stop_tokens(self, stop: Sequence[str]) -> frozenset[int]:
        """Return the ids of special tokens whose names are in `stop`; texts never contain them."""
        return frozenset(self.specials[text] for text in stop if text in self.specials)

    def scanner(self, stop: Sequence[str], before: Sequence[int]) -> StopScanner:
        """Return a scanner for the texts of `stop` in an answer after the tokens `before`."""
        # If a text contains a special token and more, it is searched in text with special tokens.
        if any(name in text and name != text for text in stop for name in self.specials):
            return StopScanner(
                self.decode_all,
                stop,
                before=before,
                plain=self.decode,
                hidden=tuple(self.specials),
            )
        return StopScanner(self.decode, stop, before=before)

    @cached_property
    def specials(self) -> dict[str, int]:
        """{name: id} of the special tokens."""
        added = self.backend.added_tokens_decoder.items()
        return {token.content: i for i, token in added if token.special and token.content}

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.specials.values()) | frozenset(self.backend.all_special_ids)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token id; they may be a part of a character.

        Return b"" if the model has the id but the tokenizer does not. If the vocabulary does not
        define bytes, return those of the token's text.
        """
        name = self.backend.convert_ids_to_tokens(token) if token < self._size else None
        if name is None:
            return b""
        if self._tokens is None or token >= self._tokens.vocab_size:
            text: str = self.backend.decode([token], clean_up_tokenization_spaces=False)
            return text.encode()
        data = self._tokens.decode_bytes([token])
        # llguidance marks special tokens by a first byte 0xFF, and removes a token's own 0xFF.
        marked = self._tokens.is_special_token(token) and data != name.encode()
        return b"\xff" + data if marked else data

    @cached_property
    def chat(self) -> Chat:
        """The chat template; the model must have one."""
        template = ChatTemplate(self.backend.get_chat_template())
        return Chat(template, self.backend.special_tokens_map)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Limits of the chat template, for a person; found by rendering test messages."""
        if not self.backend.chat_template:
            return ()
        if not self.chat.renders("user") and not self.chat.renders("system", "user"):
            return ("the chat template renders no text of a user: only raw prompts are answered",)
        if not self.chat.renders("system", "user"):
            return ("the chat template renders no system message: rows with one are refused",)
        return ()

    @cached_property
    def _size(self) -> int:
        # Ids may have gaps, so the number of tokens is not enough.
        ids: dict[str, int] = self.backend.get_vocab()
        return 1 + max(ids.values())

    @cached_property
    def _tokens(self) -> LLTokenizer | None:
        # llguidance knows how byte-level, byte-fallback and sentencepiece vocabularies write bytes.
        try:
            return llguidance.hf.from_tokenizer(self.backend, slices=[])
        except ValueError:  # a tokenizer in Python, or a kind without parts of characters
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
        if special and text.startswith(tuple(self.specials)):
            return self._begun(ids, self.backend(text, add_special_tokens=False)["input_ids"])
        return ids

    def _begun(self, ids: list[int], plain: list[int]) -> list[int]:
        """Return `ids` without the added first tokens that the text begins with itself.

        `plain` are the tokens of the same text without added special tokens.
        """
        ends = range(len(ids) - len(plain) + 1)
        added = next((at for at in ends if ids[at : at + len(plain)] == plain), 0)
        return ids[added:] if plain[:added] == ids[:added] else ids
