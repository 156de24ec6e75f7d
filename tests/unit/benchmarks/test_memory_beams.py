"""The recorded beam searches, and how they are recorded and stretched."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import memory_beams
from benchmarks.memory_beams import PROMPTS, RECORD, RUN, STEPS, WIDTHS, Search, load
from tests.support.reference import generate
from tests.support.tiny_models import tiny_llama

NUMBERED = Search(parents=[[step] for step in range(STEPS - 1)], ended=None)


def test_the_record_is_whole_and_small() -> None:
    prompts = load()
    assert [prompt.line for prompt in prompts] == list(range(1, PROMPTS + 1))
    for prompt in prompts:
        assert tuple(prompt.searches) == WIDTHS
        for width, search in prompt.searches.items():
            assert len(search.parents) == STEPS - 1
            assert all(len(step) == width for step in search.parents)
            assert all(0 <= beam < width for step in search.parents for beam in step)
    assert RECORD.stat().st_size < 200_000


@pytest.mark.parametrize("steps", [2, 3, STEPS])
def test_a_search_within_the_record_is_its_beginning(steps: int) -> None:
    assert [NUMBERED.at(step, steps=steps)[0] for step in range(1, steps)] == [*range(steps - 1)]


@pytest.mark.parametrize("steps", [STEPS + 1, 300, 2047])
def test_a_longer_search_is_runs_from_the_whole_of_the_record(steps: int) -> None:
    replayed = [NUMBERED.at(step, steps=steps)[0] for step in range(1, steps)]
    for start in range(0, steps - 1, RUN):
        run = replayed[start : start + RUN]
        assert all(later == earlier + 1 for earlier, later in pairwise(run))
    starts = replayed[::RUN]
    assert starts == sorted(starts)
    assert (starts[0], starts[-1]) == (0, STEPS - 1 - RUN)


def test_what_is_recorded_is_what_transformers_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(memory_beams, "STEPS", 12)
    folder = tiny_llama(tmp_path / "tiny")
    memory_beams.record(folder, tmp_path / "beams.json", prompts=1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = memory_beams.EXAMPLES.read_text().splitlines()
    for prompt in load(tmp_path / "beams.json"):
        ids = memory_beams.prompt_ids(lines[prompt.line - 1], tokenizer)
        assert len(ids) == prompt.prompt_tokens
        for width, search in prompt.searches.items():
            found = generate(
                model,
                ids,
                num_beams=width,
                num_return_sequences=width,
                max_new_tokens=12,
                # what ends an answer is set aside: the search goes on without it
                suppress_tokens=[model.generation_config.eos_token_id],
                eos_token_id=None,
                output_scores=True,
            )
            assert _lineages(search) == sorted(found.beam_indices.tolist())


def _lineages(search: Search) -> list[list[int]]:
    """Return, of each last beam, the beams that its tokens were appended to."""
    steps = [[0] * len(search.parents[0]), *search.parents]
    found = []
    for beam in range(len(steps[-1])):
        lineage = []
        for step in reversed(steps):
            beam = step[beam]
            lineage.append(beam)
        found.append(lineage[::-1])
    return sorted(found)
