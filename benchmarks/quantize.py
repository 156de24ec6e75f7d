"""Measures weights of eight bits beside float32: quality, speed and memory.

    python benchmarks/quantize.py MODEL [--rows 128] [--texts 128] [--workload FILE] [--rounds 3]
                                  [--json] [--save FILE]

Quality is of transformers' model with the same rounded weights, on texts it only reads: perplexity,
and how often the most likely next token stays the same. Speed is of both engines in turn, greedy:
W1, and one row, where a step's time is that of reading the weights.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.alternation import Engine, Outcome, alternate, median_seconds, speedup
from benchmarks.equality import parting
from benchmarks.options import make_parser, parse, publish
from benchmarks.task import Task
from benchmarks.workload import random_prompts, texts, workload

ROWS = TEXTS = 128
ONE_PROMPT, ONE_ANSWER = 16, 128  # tokens


def quality(model: Path, passages: list[str]) -> dict[str, Any]:
    """Return the perplexity of `passages` with either weights, and how often both agree."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from batchgen_kernels.cpu.rounding import round_linears

    loader: Any = AutoModelForCausalLM
    network = loader.from_pretrained(model, dtype=torch.float32, local_files_only=True).eval()
    rounded = loader.from_pretrained(model, dtype=torch.float32, local_files_only=True).eval()
    round_linears(rounded)
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    losses, same, count = [0.0, 0.0], 0, 0
    with torch.inference_mode():
        for passage in passages:
            ids = tokenizer(passage, return_tensors="pt")["input_ids"]
            both = [each(ids).logits[0, :-1] for each in (network, rounded)]
            for i, logits in enumerate(both):
                losses[i] += float(cross_entropy(logits, ids[0, 1:], reduction="sum"))
            same += int((both[0].argmax(-1) == both[1].argmax(-1)).sum())
            count += len(both[0])
    return {
        "tokens": count,
        "perplexity": round(math.exp(losses[0] / count), 4),
        "perplexity_int8": round(math.exp(losses[1] / count), 4),
        "next_token_agreement": round(same / count, 4),
    }


def compare(task: Task, *, rounds: int) -> dict[str, Any]:
    """Run `task` with either weights in turn; return how fast, how large and how alike."""
    runs: dict[str, Callable[[], Outcome]] = {
        kind: partial(Engine().run, replace(task, quantize=kind)) for kind in ("none", "int8")
    }
    results = alternate(runs, rounds)
    plain, small = results["none"], results["int8"]
    pairs = list(zip(plain[0].tokens, small[0].tokens, strict=True))
    alike = [parting(mine, other) for mine, other in pairs]
    return {
        "rows": len(task.rows),
        "generated_tokens_per_second": _rate(task, plain),
        "generated_tokens_per_second_int8": _rate(task, small),
        "speedup": speedup(small, plain),
        "weight_bytes": plain[0].counters["weight_bytes"],
        "weight_bytes_int8": small[0].counters["weight_bytes"],
        "equal_rows": sum(mine == other for mine, other in pairs),
        # tokens before the first that differs, as a share of the answer
        "common_share": round(
            mean(
                1.0 if at is None else at / len(mine)
                for at, (mine, _) in zip(alike, pairs, strict=True)
            ),
            3,
        ),
    }


def _rate(task: Task, outcomes: list[Outcome]) -> float:
    return round(task.generated_tokens / median_seconds(outcomes), 1)


def describe(result: dict[str, Any]) -> str:
    """Return the figures in words."""
    text = (
        "perplexity {perplexity} with float32, {perplexity_int8} with int8; the most likely next "
        "token is the same {next_token_agreement:.1%} of the time ({tokens:,} tokens)\n"
    ).format_map(result["quality"])
    for run in result["runs"]:
        text += (
            "{rows} rows: {generated_tokens_per_second} generated tokens/s with float32, "
            "{generated_tokens_per_second_int8} with int8, {speedup} times as fast; {equal_rows} "
            "answers the same, {common_share:.1%} of each before they part\n"
        ).format_map(run)
    sizes = [result["runs"][0][name] / 1e6 for name in ("weight_bytes", "weight_bytes_int8")]
    return text + f"weights: {sizes[0]:.0f} MB with float32, {sizes[1]:.0f} MB with int8"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser(__doc__, rows=ROWS)
    parser.add_argument("--texts", type=int, default=TEXTS, help="passages that are read")
    args = parse(parser, arguments)
    if args.peer is not None:
        parser.error("This compares the engine with itself: leave out --peer.")
    many = Task(
        model=args.model,
        rows=workload(args.model, args.rows, file=args.workload),
        threads=args.threads,
    )
    (prompt,) = random_prompts(args.model, 1, tokens=ONE_PROMPT)
    one = replace(many, rows=[(prompt, ONE_ANSWER)])
    result = {
        "rounds": args.rounds,
        "threads": args.threads,
        "quality": quality(args.model, texts(args.texts, file=args.workload)),
        "runs": [compare(task, rounds=args.rounds) for task in (many, one)],
    }
    publish(args, "quantize", result, describe(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
