"""Tokens per second of one batch of chats, as a share of what the arithmetic allows.

    python benchmarks/throughput.py MODEL [--rows 128] [--workload FILE] [--rounds 3] [--json]
                                    [--peer NAME --peer-python PATH] [--save FILE]

W1: prompts through the chat template, the output length of each row fixed, greedy, end-of-sequence
ignored, nothing cached between rows. Engine, peer and ceiling run in turn; medians of the rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks import ceiling
from benchmarks.agreement import agreement
from benchmarks.alternation import OURS, Engine, Outcome, alternate, median_seconds, speedup
from benchmarks.ceiling import Arithmetic
from benchmarks.options import make_parser, parse, peer_of, publish
from benchmarks.task import Task
from benchmarks.workload import workload

ROWS = 128


def measure(task: Task, peer: Engine | None, *, rounds: int) -> dict[str, Any]:
    """Run ours, the ceiling and the peer in turn; return the figures."""
    runs: dict[str, Callable[[], Any]] = {
        "ceiling": lambda: ceiling.run(task.model, threads=task.threads),
        OURS: lambda: Engine().run(task),
    }
    if peer is not None:
        runs[peer.name] = lambda: peer.run(task)
    results = alternate(runs, rounds)
    ours: list[Outcome] = results[OURS]
    best = median(max(rates.values()) for rates in results["ceiling"])
    seconds = median_seconds(ours)
    operations = Arithmetic.of(task.model).operations_of(task)
    result = {
        "rows": len(task.rows),
        "rounds": rounds,
        "threads": task.threads,
        "prompt_tokens": task.prompt_tokens,
        "generated_tokens": task.generated_tokens,
        **rates_of(task, ours),
        "scheduler_share": round(median(run.counters["scheduler_share"] for run in ours), 5),
        "teraflop": round(operations / 1e12, 3),
        "ceiling_gflops": round(best, 1),
        "ceiling_layouts": results["ceiling"],
        "ceiling_ratio": round(operations / seconds / best / 1e9, 4),
    }
    if peer is not None:
        theirs: list[Outcome] = results[peer.name]
        same = agreement(task.model, task.rows, ours[0].tokens, theirs[0].tokens)
        result |= {
            "peer": {
                "name": peer.name,
                "version": theirs[0].version,
                "threads": theirs[0].counters.get("threads", task.threads),
                **rates_of(task, theirs),
            },
            "peer_ratio": speedup(ours, theirs),
            "same_tokens": asdict(same),
        }
    return result


def rates_of(task: Task, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return tokens per second by the median time, and each round's time."""
    seconds = median_seconds(outcomes)
    return {
        "seconds": [round(outcome.seconds, 2) for outcome in outcomes],
        "total_tokens_per_second": round((task.prompt_tokens + task.generated_tokens) / seconds, 1),
        "generated_tokens_per_second": round(task.generated_tokens / seconds, 1),
    }


def describe(result: dict[str, Any]) -> str:
    """Return the figures in words."""
    text = (
        "{rows} rows, {prompt_tokens:,} prompt and {generated_tokens:,} generated tokens: "
        "{total_tokens_per_second} tokens/s, {generated_tokens_per_second} generated; "
        "{ceiling_ratio:.1%} of the ceiling ({teraflop} TFLOP at {ceiling_gflops} GFLOP/s), "
        "{scheduler_share:.2%} in the scheduler"
    ).format_map(result)
    if "peer" in result:
        text += (
            "\n{peer[name]} {peer[version]}: {peer[total_tokens_per_second]} tokens/s; ours is "
            "{peer_ratio} times as fast; {same_tokens[equal]} of {same_tokens[rows]} rows with "
            "the same tokens, {same_tokens[ties]} ties, {same_tokens[different]} differ"
        ).format_map(result)
    return text


def make_task(args: argparse.Namespace) -> Task:
    """Return the work that the arguments describe."""
    rows = workload(args.model, args.rows, file=args.workload)
    return Task(model=args.model, rows=rows, threads=args.threads)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 where tokens differ that are no tie."""
    args = parse(make_parser(__doc__, rows=ROWS), arguments)
    result = measure(make_task(args), peer_of(args), rounds=args.rounds)
    publish(args, "throughput", result, describe(result))
    return 1 if result.get("same_tokens", {}).get("different") else 0


if __name__ == "__main__":
    sys.exit(main())
