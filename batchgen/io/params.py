"""Decoding parameters of one row, by OpenAI's and vLLM's names."""

from __future__ import annotations

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one row is decoded. Bounds are checked in `batchgen.io.lines`, never here."""

    # Tokens to generate at most; None means as many as the context still holds.
    max_tokens: int | None = None
    # 0 is greedy.
    temperature: float = 1.0
    # Probability mass kept, in (0, 1].
    top_p: float = 1.0
    # Tokens kept; 0 keeps all.
    top_k: int = 0
    # Seed of this row; None is replaced by one derived from the job and the row.
    seed: int | None = None
    # Text that ends the answer; it is not part of the answer.
    stop: tuple[str, ...] = ()
    # Go on past end-of-sequence tokens until max_tokens.
    ignore_eos: bool = False
    # Answers drawn from one prompt.
    n: int = 1
    # Return the token ids of each choice beside its text (`choices.tokens`).
    return_token_ids: bool = False

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0
