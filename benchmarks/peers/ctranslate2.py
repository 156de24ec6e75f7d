"""Compute a task with CTranslate2: python -P benchmarks/peers/ctranslate2.py TASK.json

Static batches of rows with like answer lengths; each batch runs to its longest answer. The model is
converted first, float32 as it is, which is not timed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROCESS_BEGAN = time.perf_counter()


def generate(
    generator: Any, task: dict[str, Any], words: list[str], rows: list[tuple[list[int], int]]
) -> list[list[int]]:
    """Return the tokens of the first choice of each row of one batch."""
    length = max(answer for _, answer in rows)
    options: dict[str, Any] = {"beam_size": task["beams"], "num_hypotheses": task["samples"]}
    if task["beams"] == 1:
        # An end token that is never drawn: answers end at their length alone.
        options |= {"end_token": [len(words) - 1], "min_length": length}
    if task["samples"] > 1:
        options |= {"sampling_topk": 0}
    results = generator.generate_batch(
        [[words[token] for token in prompt] for prompt, _ in rows],
        max_length=length,
        include_prompt_in_result=False,
        max_batch_size=task["batch"],
        **options,
    )
    return [list(result.sequences_ids[0]) for result in results]


def compute(
    generator: Any, task: dict[str, Any], words: list[str], rows: list[tuple[list[int], int]]
) -> list[list[int]]:
    """Return the tokens of every row's first choice, cut to the row's own length."""
    order = sorted(range(len(rows)), key=lambda i: rows[i][1])
    tokens: dict[int, list[int]] = {}
    for start in range(0, len(rows), task["batch"]):
        keys = order[start : start + task["batch"]]
        out = generate(generator, task, words, [rows[key] for key in keys])
        tokens |= {key: answer[: rows[key][1]] for key, answer in zip(keys, out, strict=True)}
    return [tokens[key] for key in range(len(rows))]


def main() -> None:
    """Convert, load, warm up, compute and print one JSON line."""
    import ctranslate2
    import transformers

    task = json.loads(Path(sys.argv[1]).read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["model"], local_files_only=True)
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    with tempfile.TemporaryDirectory(prefix="ctranslate2-") as folder:
        converter = ctranslate2.converters.TransformersConverter(task["model"])
        converter.convert(folder, force=True)
        generator = ctranslate2.Generator(
            folder, device="cpu", intra_threads=task["threads"], inter_threads=1
        )
    rows = list(zip(task["prompts"], task["answers"], strict=True))
    warm_up = [(prompt, min(8, answer)) for prompt, answer in task["warm_up"]]
    compute(generator, task, words, warm_up)
    load_seconds = time.perf_counter() - PROCESS_BEGAN
    began = time.perf_counter()
    tokens = compute(generator, task, words, rows)
    result = {
        "version": ctranslate2.__version__,
        "seconds": time.perf_counter() - began,
        "load_seconds": load_seconds,
        "tokens": tokens,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
