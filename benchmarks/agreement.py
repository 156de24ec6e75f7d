"""Compares the tokens of two engines; at a tie either of two may be right.

A row that differs is looked at where it first does: transformers computes the logits there from
what both agree on, and if its two best lie closer than `TIE`, the row is a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.equality import TIE, parting
from benchmarks.task import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The number of rows that two engines answered alike."""

    rows: int
    equal: int
    ties: int
    different: list[int]


def agreement(
    model: Path, rows: list[Row], ours: list[list[int]], theirs: list[list[int]]
) -> Agreement:
    """Compare the greedy answers to `rows`, token by token."""
    parted = {
        i: parting(mine, other)
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True))
        if mine != other
    }
    contexts = {i: rows[i][0] + ours[i][:at] for i, at in parted.items() if at is not None}
    gaps = _gaps(model, contexts) if contexts else {}
    ties = [i for i, gap in gaps.items() if gap < TIE]
    return Agreement(
        rows=len(rows),
        equal=len(rows) - len(parted),
        ties=len(ties),
        different=sorted(parted.keys() - set(ties)),
    )


def _gaps(model: Path, contexts: dict[int, list[int]]) -> dict[int, float]:
    """Return how far the reference's two best logits lie apart after each context."""
    import torch
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    network = loader.from_pretrained(model, dtype=torch.float32, local_files_only=True).eval()
    gaps = {}
    with torch.inference_mode():
        for i, tokens in contexts.items():
            best = network(torch.tensor([tokens])).logits[0, -1].topk(2).values
            gaps[i] = float(best[0] - best[1])
    return gaps
