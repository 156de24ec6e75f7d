"""Measures generated tokens per second of few and of many rows.

    python benchmarks/scaling.py MODEL [--sizes 128 512 1000] [--workload FILE] [--rounds 3]
                                 [--short 1000] [--peer NAME --peer-python PATH] [--json]

W1 in several sizes, in turn; the rows of the larger ones wait. And many short rows, prompts of 16
tokens with answers of 8, which a peer computes too: transformers in static batches of 32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from benchmarks.alternation import OURS, Engine, Outcome, alternate, median_seconds, speedup
from benchmarks.options import make_parser, parse, peer_of, publish
from benchmarks.task import Task
from benchmarks.workload import random_prompts, workload

SIZES = (128, 512, 1000)  # rows
SHORT = 1000  # rows
SHORT_PROMPT, SHORT_ANSWER = 16, 8  # tokens


def measure(
    tasks: dict[int, Task], short: Task | None, peer: Engine | None, *, rounds: int
) -> dict[str, Any]:
    """Run every size, and the short rows with ours and the peer, in turn; return the figures."""
    runs: dict[str, Callable[[], Outcome]] = {
        f"{rows} rows": partial(Engine().run, task) for rows, task in tasks.items()
    }
    if short is not None:
        runs[OURS] = partial(Engine().run, short)
        if peer is not None:
            runs[peer.name] = partial(peer.run, short)
    results = alternate(runs, rounds)
    sizes = [_size(task, results[f"{rows} rows"]) for rows, task in tasks.items()]
    for size in sizes:
        rates = [one["generated_tokens_per_second"] for one in (size, sizes[0])]
        size["ratio"] = round(rates[0] / rates[1], 3)
    result: dict[str, Any] = {"rounds": rounds, "sizes": sizes}
    if short is not None:
        result["short"] = _size(short, results[OURS])
        if peer is not None:
            theirs = results[peer.name]
            result["peer"] = {"name": peer.name, "version": theirs[0].version}
            result["peer"] |= _rates(short, theirs)
            result["peer_ratio"] = speedup(results[OURS], theirs)
    return result


def _size(task: Task, outcomes: list[Outcome]) -> dict[str, Any]:
    shares = [outcome.counters["scheduler_share"] for outcome in outcomes]
    steps = [outcome.counters["steps"] for outcome in outcomes]
    return {
        "rows": len(task.rows),
        "prompt_tokens": task.prompt_tokens,
        "generated_tokens": task.generated_tokens,
        **_rates(task, outcomes),
        "steps": steps[0],
        "scheduler_share": round(median(shares), 5),
        "preemptions": max(outcome.counters["preemptions"] for outcome in outcomes),
    }


def _rates(task: Task, outcomes: list[Outcome]) -> dict[str, Any]:
    rate = task.generated_tokens / median_seconds(outcomes)
    return {
        "seconds": [round(outcome.seconds, 2) for outcome in outcomes],
        "generated_tokens_per_second": round(rate, 1),
    }


def describe(result: dict[str, Any]) -> str:
    """Return the figures in words, a line for each size."""
    line = (
        "{rows:>5} rows: {generated_tokens_per_second} generated tokens/s, {ratio} of the first, "
        "{scheduler_share:.2%} in the scheduler, {preemptions} preemptions"
    )
    lines = [line.format_map(size) for size in result["sizes"]]
    if "short" in result:
        line = "{rows} short rows: {generated_tokens_per_second} generated tokens/s"
        lines.append(line.format_map(result["short"]))
    if "peer" in result:
        line = (
            "{peer[name]} {peer[version]}: {peer[generated_tokens_per_second]}; ours is "
            "{peer_ratio} times as fast with short rows"
        )
        lines.append(line.format_map(result))
    return "\n".join(lines)


def make_tasks(args: argparse.Namespace) -> tuple[dict[int, Task], Task | None]:
    """Return W1 in every size, and the short rows if there are to be any."""
    rows = workload(args.model, max(args.sizes, default=0), file=args.workload)
    tasks = {
        size: Task(model=args.model, rows=rows[:size], threads=args.threads) for size in args.sizes
    }
    if args.short == 0:
        return tasks, None
    prompts = random_prompts(args.model, args.short, tokens=SHORT_PROMPT)
    short = [(prompt, SHORT_ANSWER) for prompt in prompts]
    return tasks, Task(model=args.model, rows=short, threads=args.threads)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES), help="numbers of rows")
    parser.add_argument("--short", type=int, default=SHORT, help="short rows; 0: none")
    args = parse(parser, arguments)
    tasks, short = make_tasks(args)
    result = measure(tasks, short, peer_of(args), rounds=args.rounds)
    publish(args, "scaling", result, describe(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
