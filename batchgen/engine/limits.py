"""The limits of a request. If its worst case does not fit, it is refused before it starts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from batchgen.core.rows import RowError
from batchgen.engine.scheduling.admission import peak_blocks
from batchgen.engine.scheduling.sequence import SequenceGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one engine."""

    # Tokens of prompt and answer together: the model's context.
    context: int
    # Blocks of the pool, and tokens in each.
    blocks: int
    block_size: int
    # Token ids that the model can read.
    vocabulary: int
    # The most sequences of one group.
    width: int

    @property
    def length(self) -> int:
        """The most tokens of one prompt with one answer: the context, or the pool if smaller."""
        return min(self.context, self.blocks * self.block_size)

    def check(self, group: SequenceGroup, *, param: str) -> RowError | None:
        """Return the error, with OpenAI's codes, if `group` can never be computed, else None.

        `param` is the field that the prompt came from. If the request has no `max_tokens`, set
        `group.max_tokens` to the tokens that there is room for.
        """
        if group.num_prompt == 0:
            message = "The prompt holds no tokens."
            return RowError(code="empty_prompt", message=message, param=param)
        prompt = group.sequences[0].tokens
        error = (
            self._check_range(prompt, param) or self._check_ids(group) or self._check_width(group)
        )
        if error is not None:
            return error
        if group.params.max_tokens is None:
            group.max_tokens = max(1, self._room(group))
        return self._check_length(group, param)

    def _check_ids(self, group: SequenceGroup) -> RowError | None:
        params = group.params
        return (
            self._check_range(params.logit_bias, "logit_bias")
            or self._check_range(params.allowed_token_ids, "allowed_token_ids")
            or self._check_range(params.stop_token_ids, "stop_token_ids")
        )

    def _check_range(self, ids: Collection[int], param: str) -> RowError | None:
        if not ids or 0 <= min(ids) <= max(ids) < self.vocabulary:
            return None
        message = f"'{param}' has a token id outside 0 to {self.vocabulary - 1}."
        return RowError(code="invalid_value", message=message, param=param)

    def _check_width(self, group: SequenceGroup) -> RowError | None:
        if group.width <= self.width:
            return None
        param = "num_beams" if group.params.num_beams > 1 else "n"
        message = (
            f"'{param}' is {group.width}, but this engine computes {self.width} sequences at once "
            "at most (--max-num-seqs, --max-batch-tokens)."
        )
        return RowError(code="invalid_value", message=message, param=param)

    def _room(self, group: SequenceGroup) -> int:
        """Return how many tokens each answer of `group` can have."""
        whole = group.num_prompt // self.block_size if group.width > 1 else 0
        each = (self.blocks - whole) // group.width + whole
        # The last token needs no slot: it is drawn, but its keys and values are never computed.
        return min(self.context, each * self.block_size + 1) - group.num_prompt

    def _check_length(self, group: SequenceGroup, param: str) -> RowError | None:
        prompt, answer = group.num_prompt, group.max_tokens
        in_context = prompt + answer <= self.context
        if in_context and peak_blocks(group, self.block_size) <= self.blocks:
            return None
        if in_context:
            tokens = self.blocks * self.block_size
            limit = f"The KV pool holds {tokens} tokens of one row (raise --kv-memory)"
        else:
            limit = f"This model's maximum context length is {self.context} tokens"
        asked = f"{answer} in the answer"
        if group.params.max_tokens is None:
            asked = "at least 1 in the answer"
        elif group.width > 1:
            asked = f"{answer} in each of {group.width} answers"
        total = prompt + group.width * answer
        needs = f"this row needs {total} tokens: {prompt} in the prompt, {asked}"
        message = f"{limit}. However, {needs}."
        return RowError(code="context_length_exceeded", message=message, param=param)
