"""Decoding parameters of one row, by OpenAI's and vLLM's names."""

from __future__ import annotations

from typing import Literal

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The decoding parameters of one row. `batchgen.requests.fields` checks their bounds."""

    # The most tokens to generate; None means as many as the context still holds.
    max_tokens: int | None = None
    # 0 is greedy.
    temperature: float = 1.0
    # Probability mass kept, in (0, 1].
    top_p: float = 1.0
    # Tokens kept; 0 keeps all.
    top_k: int = 0
    # Keeps tokens with at least this share of the likeliest token's probability, in [0, 1].
    min_p: float = 0.0
    # For tokens in prompt and answer: divides positive logits, multiplies negative ones.
    repetition_penalty: float = 1.0
    # Subtracted from the logit of a token in the answer: once, and once per occurrence.
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    # {token id: added to its logit}.
    logit_bias: dict[int, float] = {}
    # The only token ids an answer may have; () allows all.
    allowed_token_ids: tuple[int, ...] = ()
    # Seed of this row; None is replaced by one derived from the job and the row.
    seed: int | None = None
    # No end-of-sequence or stop token is allowed before so many tokens.
    min_tokens: int = 0
    # Text that ends the answer; it is not part of the answer.
    stop: tuple[str, ...] = ()
    # Token ids that end the answer, as the model's own end-of-sequence tokens do.
    stop_token_ids: tuple[int, ...] = ()
    # Go on past end-of-sequence tokens until max_tokens.
    ignore_eos: bool = False
    # Answers returned for one prompt; with beams the best n, at most num_beams.
    n: int = 1
    # Beams searched; 1 is no beam search. A beam search ignores the temperature.
    num_beams: int = 1
    # Beam scores are divided by (tokens of the answer) ** length_penalty.
    length_penalty: float = 1.0
    # When a beam search ends before max_tokens; as in transformers.
    early_stopping: bool | Literal["never"] = False
    # Return the log-probability of each token, and of the top_logprobs likeliest at its position.
    logprobs: bool = False
    top_logprobs: int = 0
    # The same for prompt tokens, with so many likeliest tokens; None returns nothing.
    prompt_logprobs: int | None = None
    # JSON text of a schema that the answer must match, or a regular expression; not both.
    json_schema: str | None = None
    regex: str | None = None
    # Return the token ids of each choice beside its text (`choices.tokens`).
    return_token_ids: bool = False

    @property
    def greedy(self) -> bool:
        """True if the most likely token is always taken."""
        return self.temperature == 0.0

    @property
    def width(self) -> int:
        """The number of sequences that grow from the prompt at once."""
        return max(self.n, self.num_beams)
