"""Compute a task with batchgen: python -P benchmarks/peers/batchgen.py TASK.json"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchgen.core.params import SamplingParams
    from batchgen.engine.engine import Engine

PROCESS_BEGAN = time.perf_counter()


def params_of(task: dict[str, Any], answer: int) -> SamplingParams:
    """Return how a row with `answer` tokens is decoded."""
    from batchgen.core.params import SamplingParams

    if task["beams"] > 1:
        return SamplingParams(num_beams=task["beams"], max_tokens=answer, return_token_ids=True)
    return SamplingParams(
        temperature=1.0 if task["samples"] > 1 else 0.0,
        n=task["samples"],
        seed=0,
        max_tokens=answer,
        ignore_eos=True,
        return_token_ids=True,
    )


def compute(
    engine: Engine, task: dict[str, Any], rows: list[tuple[list[int], int]]
) -> list[list[int]]:
    """Return the tokens of every row's first choice."""
    from batchgen.core.rows import GenerationRequest

    for key, (prompt, answer) in enumerate(rows):
        params = params_of(task, answer)
        engine.add(GenerationRequest(key=key, prompt_token_ids=prompt, params=params))
    tokens: dict[int, list[int]] = {}
    while engine.has_unfinished():
        for generation in engine.step():
            assert generation.error is None, generation.error
            tokens[generation.key] = generation.choices[0].tokens or []
    return [tokens[key] for key in range(len(rows))]


def weight_bytes(engine: Engine) -> int:
    """Return the bytes of all weights, as they are kept."""
    network = engine.model.network
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def main() -> None:
    """Load, warm up, compute and print one JSON line."""
    import batchgen
    from batchgen.engine.config import EngineConfig
    from batchgen.engine.engine import Engine

    task = json.loads(Path(sys.argv[1]).read_text())
    config = EngineConfig(
        model_path=Path(task["model"]),
        model_name="model",
        max_num_seqs=task["max_num_seqs"],
        prefix_caching=task["prefix_caching"],
        quantize=task["quantize"],
        threads=task["threads"],
    )
    engine = Engine(config)
    rows = list(zip(task["prompts"], task["answers"], strict=True))
    compute(engine, task, [(prompt, min(8, answer)) for prompt, answer in task["warm_up"]])
    load_seconds = time.perf_counter() - PROCESS_BEGAN
    before, began = engine.stats(), time.perf_counter()
    tokens = compute(engine, task, rows)
    seconds, after = time.perf_counter() - began, engine.stats()
    scheduler = after.scheduler_seconds - before.scheduler_seconds
    result = {
        "version": batchgen.__version__,
        "seconds": seconds,
        "load_seconds": load_seconds,
        "tokens": tokens,
        "steps": after.steps - before.steps,
        "prompt_tokens": after.prompt_tokens - before.prompt_tokens,
        "generated_tokens": after.generated_tokens - before.generated_tokens,
        "scheduler_share": scheduler / (after.busy_seconds - before.busy_seconds),
        "preemptions": after.preemptions - before.preemptions,
        "weight_bytes": weight_bytes(engine),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
