"""The answers of transformers' own `generate`, without drawing."""

from __future__ import annotations

from typing import Any

import torch


def generate(network: Any, prompt: list[int], **options: Any) -> Any:
    """Return what `network`, a transformers model, generates, with everything it can tell."""
    ids = torch.tensor([prompt])
    return network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        return_dict_in_generate=True,
        **options,
    )


def expected_beams(
    network: Any, prompt: list[int], **options: Any
) -> list[tuple[list[int], float]]:
    """Return the generated tokens, padding taken off, and the score of each answer, best first.

    `network` is a transformers model; `options` are those of its `generate`.
    """
    found = generate(network, prompt, output_scores=True, **options)
    ends = options.get("eos_token_id", network.generation_config.eos_token_id)
    ends = [ends] if isinstance(ends, int) else ends or []
    answers = found.sequences[:, len(prompt) :].tolist()
    return [
        (until(answer, ends), score)
        for answer, score in zip(answers, found.sequences_scores.tolist(), strict=True)
    ]


def until(tokens: list[int], ends: list[int]) -> list[int]:
    """Return `tokens` up to the first of `ends`, which is included."""
    stop = next((at + 1 for at, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]
