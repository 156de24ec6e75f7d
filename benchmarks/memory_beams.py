"""Beam searches recorded with a model: which beam each beam of a step continues.

    step 1     the prompt's one row       always every beam: not recorded
    step 2     "0110"                     beam 1 and 2 continue beam 1, beam 0 and 3 beam 0
    step 3     "0023" …

Only this decides which blocks beams share; tokens and scores are not kept. A search is recorded for
STEPS steps whatever its rule for stopping says: candidates that end are set aside, as ever, and the
best that do not end go on. Where the search would have stopped is noted as `ended`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RECORD = Path(__file__).resolve().parent / "beams.json"
EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "prompts.jsonl"
WIDTHS = (2, 4, 6)
PROMPTS = 27  # the first ones of the examples: three of each of nine kinds
STEPS = 128
RUN = 32  # steps that are replayed as they follow each other, where a search outlasts its record

Parents = list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One recorded search."""

    # Of each step from the second on: the beam that each beam continues.
    parents: Parents
    # Step after which the search would have stopped; None if it would have gone on.
    ended: int | None

    def at(self, step: int, *, steps: int) -> list[int]:
        """Return the parents in step `step`, 1 or later, of a search of `steps` steps.

        A search no longer than the record is its beginning. A longer one takes runs of RUN
        consecutive steps, each from the matching relative position of the record:

            record    [ a ────────────────────── z ]
            replay    [ a──e ][ d──h ][ g──k ] … [ v──z ]
        """
        at, last = step - 1, len(self.parents) - 1
        if steps - 2 <= last:
            return self.parents[at]
        run, within = divmod(at, RUN)
        runs = -(-(steps - 1) // RUN)
        return self.parents[round(run / (runs - 1) * (len(self.parents) - RUN)) + within]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The searches for one prompt, by their width."""

    # Of the examples, from 1.
    line: int
    prompt_tokens: int
    searches: dict[int, Search]


def load(path: Path = RECORD) -> list[Recorded]:
    """Return what `save` wrote."""
    return [
        Recorded(
            line=prompt["line"],
            prompt_tokens=prompt["prompt_tokens"],
            searches={
                int(width): Search(
                    parents=[[int(beam) for beam in step] for step in search["parents"].split()],
                    ended=search["ended"],
                )
                for width, search in prompt["searches"].items()
            },
        )
        for prompt in json.loads(path.read_text())["prompts"]
    ]


def save(prompts: list[Recorded], path: Path, *, model: str, transformers: str) -> None:
    """Write a record, one prompt a line."""
    lines = [
        json.dumps(
            {
                "line": prompt.line,
                "prompt_tokens": prompt.prompt_tokens,
                "searches": {
                    str(width): {
                        "ended": search.ended,
                        "parents": " ".join("".join(map(str, step)) for step in search.parents),
                    }
                    for width, search in prompt.searches.items()
                },
            }
        )
        for prompt in prompts
    ]
    head = json.dumps({"model": model, "dtype": "float32", "transformers": transformers})
    path.write_text(head[:-1] + ', "prompts": [\n' + ",\n".join(lines) + "\n]}\n")


def record(folder: Path, path: Path = RECORD, *, prompts: int = PROMPTS) -> None:
    """Search the answers of the first example prompts with the model in `folder`; write `path`."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    with EXAMPLES.open() as lines, torch.inference_mode():
        for number, line in enumerate(islice(lines, prompts), start=1):
            found.append(_record_prompt(number, prompt_ids(line, tokenizer), model.eval()))
    save(found, path, model=folder.name, transformers=transformers.__version__)


def prompt_ids(line: str, tokenizer: Any) -> list[int]:
    """Return the token ids of one line of the examples, as the engine computes them."""
    row = json.loads(line)
    text = row.get("prompt")
    if text is None:
        messages = row["messages"]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _record_prompt(number: int, prompt: list[int], model: Any) -> Recorded:
    """Run the searches of all widths side by side, every beam a row of one batch."""
    import torch

    ends = model.generation_config.eos_token_id
    ends = frozenset([ends] if isinstance(ends, int) else ends)
    recorders = [_Recorder(width, prompt, ends) for width in WIDTHS]
    out = model(torch.tensor([prompt]), use_cache=True)
    logits = out.logits[:, -1]
    rows = [0] * len(recorders)  # the first row of each search among those of `logits`
    sizes = [1] * len(recorders)
    for _ in range(STEPS):
        chosen: list[int] = []
        for recorder, first, size in zip(recorders, rows, sizes, strict=True):
            parents = recorder.advance(logits[first : first + size])
            chosen += [first + parent for parent in parents]
        sizes = list(WIDTHS)
        rows = [sum(sizes[:i]) for i in range(len(sizes))]
        out.past_key_values.reorder_cache(torch.tensor(chosen))
        tokens = [[token] for recorder in recorders for token in recorder.tokens]
        out = model(torch.tensor(tokens), past_key_values=out.past_key_values, use_cache=True)
        logits = out.logits[:, -1]
    return Recorded(
        line=number,
        prompt_tokens=len(prompt),
        searches={recorder.width: recorder.search() for recorder in recorders},
    )


class _Recorder:
    """The engine's own beam search, with its parents written down."""

    def __init__(self, width: int, prompt: list[int], ends: frozenset[int]) -> None:
        from batchgen.core.params import SamplingParams
        from batchgen.engine.decoding.beam import BeamSearch
        from batchgen.engine.scheduling.sequence import Sequence

        self.width = width
        self.tokens: list[int] = []
        params = SamplingParams(num_beams=width)
        self._search = BeamSearch(params, max_tokens=STEPS + 1, num_ends=len(ends))
        self._beams = [Sequence(key=0, index=0, tokens=prompt, num_prompt=len(prompt))]
        self._ends = ends
        self._parents: Parents = []
        self._ended: int | None = None

    def advance(self, logits: Tensor) -> list[int]:
        """Take the next step from the logits [beams, V]; return the parents."""
        step = self._search.advance(
            logits.log_softmax(-1),
            self._beams,
            lambda _, token: "stop" if token in self._ends else None,
            lambda beam, _: beam.fork(beam.index),
        )
        assert len(step.parents) == self.width
        self._beams = [self._beams[parent].fork(i) for i, parent in enumerate(step.parents)]
        for beam, token in zip(self._beams, step.tokens, strict=True):
            beam.append(token, 0.0)
        self.tokens = step.tokens
        self._parents.append(step.parents)
        if step.done and self._ended is None:
            self._ended = len(self._parents)
        return step.parents

    def search(self) -> Search:
        """Return what was recorded."""
        return Search(parents=self._parents[1:], ended=self._ended)
