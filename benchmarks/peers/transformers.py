"""Compute a task with transformers: python -P benchmarks/peers/transformers.py TASK.json

`generate` in static batches of rows with like answer lengths, padded on the left; each batch runs
to its longest answer.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

PROCESS_BEGAN = time.perf_counter()


def generate(model: Any, task: dict[str, Any], rows: list[tuple[list[int], int]]) -> Any:
    """Return [rows x samples, longest] new tokens of one batch."""
    import torch

    width, length = max(len(prompt) for prompt, _ in rows), max(answer for _, answer in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, _) in enumerate(rows):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    options: dict[str, Any] = {"do_sample": task["samples"] > 1, "pad_token_id": 0}
    if task["beams"] > 1:
        options["num_beams"] = task["beams"]
    else:
        # Answers end at their length alone, whatever their tokens.
        model.generation_config.eos_token_id = None
        options["num_return_sequences"] = task["samples"]
    with torch.inference_mode():
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=length, **options)
    return out[:, width:]


def compute(model: Any, task: dict[str, Any], rows: list[tuple[list[int], int]]) -> list[list[int]]:
    """Return the tokens of every row's first choice, cut to the row's own length."""
    order = sorted(range(len(rows)), key=lambda i: rows[i][1])
    tokens: dict[int, list[int]] = {}
    for start in range(0, len(rows), task["batch"]):
        keys = order[start : start + task["batch"]]
        out = generate(model, task, [rows[key] for key in keys])
        for key, answer in zip(keys, out[:: task["samples"]].tolist(), strict=True):
            tokens[key] = answer[: rows[key][1]]
    return [tokens[key] for key in range(len(rows))]


def main() -> None:
    """Load, warm up, compute and print one JSON line."""
    import torch
    import transformers

    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    loader: Any = transformers.AutoModelForCausalLM
    model = loader.from_pretrained(
        task["model"], dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    ).eval()
    rows = list(zip(task["prompts"], task["answers"], strict=True))
    compute(model, task, [(prompt, min(8, answer)) for prompt, answer in task["warm_up"]])
    load_seconds = time.perf_counter() - PROCESS_BEGAN
    began = time.perf_counter()
    tokens = compute(model, task, rows)
    result = {
        "version": transformers.__version__,
        "seconds": time.perf_counter() - began,
        "load_seconds": load_seconds,
        "tokens": tokens,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
