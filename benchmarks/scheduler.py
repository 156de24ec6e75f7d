"""Measures the scheduler: milliseconds a step, and its share of a real step.

    python benchmarks/scheduler.py [MODEL_DIR] [--running 128] [--waiting 1000 10000 100000]
                                   [--json] [--save FILE]

Without a model the scheduler runs alone over a pool that is always short of blocks, so that every
step admits or asks whether it may. With a model the same numbers of rows wait before a
real engine, and its own counters say what part of its busy time went into scheduling.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.prefixes import PrefixCache
from batchgen.engine.scheduling.scheduler import Scheduler
from batchgen.engine.scheduling.sequence import SequenceGroup
from batchgen.engine.scheduling.swapping import Swapper
from benchmarks.options import save

if TYPE_CHECKING:
    from batchgen.engine.engine import Engine

BLOCK_SIZE = 16
BUDGET = 2048
STEPS = 200
PROMPT, ANSWER = 161, 338  # mean tokens, as in ShareGPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One measurement."""

    running: int
    waiting: int
    preemptions: int
    # Median and largest over the steps, in milliseconds.
    median_ms: float
    largest_ms: float
    # Of the engine's busy time; None without a model.
    share: float | None = None


def measure_alone(*, running: int, waiting: int) -> Cost:
    """Time `STEPS` steps with about `running` sequences in the pool."""
    rng = random.Random(0)  # noqa: S311
    scheduler = make_scheduler(running)
    for key in range(waiting + running):
        prompt = [rng.randrange(1000) for _ in range(rng.randint(1, 2 * PROMPT))]
        answer = rng.randint(1, 2 * ANSWER)
        group = SequenceGroup.of_prompt(key, prompt, SamplingParams(), max_tokens=answer, job="a")
        scheduler.add(group)
    times = [one_step(scheduler) for _ in range(2 * STEPS)][STEPS:]
    return Cost(
        running=scheduler.num_running,
        waiting=scheduler.num_waiting,
        preemptions=scheduler.preemptions,
        median_ms=1000 * statistics.median(times),
        largest_ms=1000 * max(times),
    )


def make_scheduler(running: int) -> Scheduler:
    """Return a scheduler whose pool is about full with `running` sequences."""
    blocks = running * (PROMPT + ANSWER) // BLOCK_SIZE
    pool = BlockPool(blocks + 1, BLOCK_SIZE)
    tables = BlockTables(pool, rows=running, width=blocks)
    return Scheduler(
        tables,
        max_batch_tokens=BUDGET,
        max_num_seqs=running,
        swapper=Swapper(tables, BlockPool(blocks // 4, BLOCK_SIZE)),
        prefixes=PrefixCache(pool, model="benchmark"),
    )


def one_step(scheduler: Scheduler) -> float:
    """Compute a step without a model; return the seconds spent in the scheduler."""
    began = time.perf_counter()
    plan = scheduler.schedule()
    scheduler.advance(plan)
    spent = time.perf_counter() - began
    limits = {entry.sequence: entry.group.max_tokens for entry in plan.scheduled_tokens}
    for sequence in plan.drawing:
        sequence.append(1, 0.0)
        if sequence.num_generated == limits[sequence]:
            sequence.finish_reason = "length"
    began = time.perf_counter()
    scheduler.retire(plan)
    return spent + time.perf_counter() - began


def measure_engine(model: Path, *, running: int, waiting: int, steps: int) -> Cost:
    """Let rows wait before a real engine, and read its counters after `steps` steps."""
    from batchgen.core.rows import GenerationRequest
    from batchgen.engine.config import EngineConfig
    from batchgen.engine.engine import Engine

    config = EngineConfig(model_path=model, model_name=model.name, max_num_seqs=running)
    engine = Engine(config)
    params = SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True)
    rng = random.Random(0)  # noqa: S311
    for key in range(running + waiting):
        prompt = [rng.randrange(1000) for _ in range(16)]
        engine.add(GenerationRequest(key=key, prompt_token_ids=prompt, params=params))
    engine.step()
    before = engine.stats().busy_seconds
    times = [_timed_step(engine) for _ in range(steps)]
    stats = engine.stats()
    return Cost(
        running=stats.running,
        waiting=stats.waiting,
        preemptions=stats.preemptions,
        median_ms=1000 * statistics.median(times),
        largest_ms=1000 * max(times),
        share=sum(times) / (stats.busy_seconds - before),
    )


def _timed_step(engine: Engine) -> float:
    before = engine.stats().scheduler_seconds
    engine.step()
    return engine.stats().scheduler_seconds - before


def main() -> int:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--running", type=int, default=128)
    parser.add_argument("--waiting", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--steps", type=int, default=20, help="steps of a real engine")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, help="JSON file that the figures are appended to")
    args = parser.parse_args()
    costs = [measure_alone(running=args.running, waiting=waiting) for waiting in args.waiting]
    if args.model is not None:
        most = max(args.waiting)
        costs.append(
            measure_engine(args.model, running=args.running, waiting=most, steps=args.steps)
        )
    if args.save is not None:
        save(args.save, "scheduler", {"costs": [asdict(cost) for cost in costs]})
    if args.json:
        print(json.dumps([asdict(cost) for cost in costs]))
        return 0
    for cost in costs:
        share = "" if cost.share is None else f", {cost.share:.2%} of the engine's time"
        print(
            f"{cost.running:4} running, {cost.waiting:7,} waiting: {cost.median_ms:.2f} ms a step "
            f"(at most {cost.largest_ms:.2f}), {cost.preemptions} preemptions{share}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
