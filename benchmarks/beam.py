"""Beam searches per second of a batch of chats.

    python benchmarks/beam.py MODEL [--rows 16] [--width 4] [--answer 64] [--batch 8] [--rounds 3]
                              [--peer NAME --peer-python PATH] [--limit 600] [--json] [--save FILE]

Every engine searches as transformers does by default: a beam may end before its last token, and the
best answer counts. A peer that has not finished after the limit is taken to have finished then, so
that its rate is the most, and our ratio to it the least, that they can be. vLLM alone is stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.alternation import OURS, Engine, Outcome, alternate, median_seconds, speedup
from benchmarks.options import make_parser, parse, peer_of, publish
from benchmarks.task import LIMIT, Task
from benchmarks.workload import chats, encode

ROWS = 16
WIDTH = 4  # beams
ANSWER = 64  # tokens at most
BATCH = 8  # rows in a batch of engines whose batches are static


def measure(task: Task, peer: Engine | None, *, rounds: int) -> dict[str, Any]:
    """Run ours and the peer in turn; return the figures."""
    runs: dict[str, Callable[[], Outcome]] = {OURS: lambda: Engine().run(task)}
    if peer is not None:
        runs[peer.name] = lambda: peer.run(task)
    results = alternate(runs, rounds)
    ours = results[OURS]
    result = {
        "rows": len(task.rows),
        "width": task.beams,
        "rounds": rounds,
        "threads": task.threads,
        "prompt_tokens": task.prompt_tokens,
        **_rates_of(task, ours),
    }
    if peer is not None:
        theirs = results[peer.name]
        finished = all(outcome.finished for outcome in theirs)
        result |= {
            "peer": {
                "name": peer.name,
                "version": theirs[0].version,
                "finished": finished,
                **_rates_of(task, theirs),
            },
            "peer_ratio": speedup(ours, theirs),
            "same_answers": _count_same(ours[0], theirs[0]) if finished else None,
        }
    return result


def _rates_of(task: Task, outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "seconds": [round(outcome.seconds, 2) for outcome in outcomes],
        "requests_per_second": round(len(task.rows) / median_seconds(outcomes), 4),
        # of the best beams, which may end early
        "answer_tokens": sum(map(len, outcomes[0].tokens)),
    }


def _count_same(ours: Outcome, theirs: Outcome) -> int:
    return sum(mine == other for mine, other in zip(ours.tokens, theirs.tokens, strict=True))


def describe(result: dict[str, Any]) -> str:
    """Return the figures in words."""
    text = (
        "{rows} rows, {width} beams: {requests_per_second} requests/s, best answers of "
        "{answer_tokens} tokens in all"
    ).format_map(result)
    if "peer" in result:
        text += (
            "\n{peer[name]} {peer[version]}: {peer[requests_per_second]} requests/s; ours is "
            "{peer_ratio} times as fast"
        ).format_map(result)
        text += (
            f", {result['same_answers']} best answers of {result['rows']} are the same"
            if result["peer"]["finished"]
            else " or more: it was stopped before it had finished"
        )
    return text


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = make_parser(__doc__, rows=ROWS)
    parser.add_argument("--width", type=int, default=WIDTH, help="beams")
    parser.add_argument("--answer", type=int, default=ANSWER, help="tokens at most")
    parser.add_argument("--batch", type=int, default=BATCH, help="rows in a peer's static batch")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of a peer's search")
    args = parse(parser, arguments)
    prompts = encode(args.model, chats(args.rows, file=args.workload))
    task = Task(
        model=args.model,
        rows=[(prompt, args.answer) for prompt in prompts],
        beams=args.width,
        threads=args.threads,
        batch=args.batch,
        prefix_caching=True,
        limit=args.limit,
    )
    result = measure(task, peer_of(args), rounds=args.rounds)
    publish(args, "beam", result, describe(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
