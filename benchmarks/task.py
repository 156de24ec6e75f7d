"""The work that engines are given: the same prompts and answer lengths for each, as one file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

Row = tuple[list[int], int]  # the prompt's tokens, and how many tokens are generated

WARM_UP = 4  # rows
LIMIT = 600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One computation of one engine; greedy, answers end at their length alone.

    With `samples` above 1 tokens are drawn, with `beams` above 1 an end-of-sequence token ends a
    beam, as it does in a search by transformers.
    """

    model: Path
    rows: list[Row]
    samples: int = 1
    beams: int = 1
    # CPU threads.
    threads: int = 1
    # Sequences in one step, and rows in a batch of engines whose batches are static.
    max_num_seqs: int = 128
    batch: int = 32
    prefix_caching: bool = False
    # Of our engine alone: `EngineSettings.quantize`.
    quantize: str = "none"
    # Seconds after which a peer that can be interrupted gives up.
    limit: float = LIMIT

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(prompt) for prompt, _ in self.rows)

    @property
    def generated_tokens(self) -> int:
        """Tokens of all answers, one to a row."""
        return sum(answer for _, answer in self.rows)

    @property
    def warm_up(self) -> list[Row]:
        """The rows that are computed before the clock starts; reversed, so that none is cached."""
        return [(prompt[::-1], answer) for prompt, answer in self.rows[:WARM_UP]]

    def write(self, path: Path) -> None:
        """Write the task as the runners in `benchmarks/peers` read it."""
        values = asdict(self) | {
            "model": str(self.model.resolve()),
            "prompts": [prompt for prompt, _ in self.rows],
            "answers": [answer for _, answer in self.rows],
            "warm_up": self.warm_up,
        }
        del values["rows"]
        path.write_text(json.dumps(values))
