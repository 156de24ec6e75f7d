"""Engines in turn, each in a process of its own, so that a machine's drift meets all of them.

round 1: a b c     round 2: c b a     round 3: a b c
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self, TypeVar

from benchmarks.task import Task

OURS = "batchgen"
PEERS = ("vllm", "transformers", "ctranslate2")
SCRIPTS = Path(__file__).resolve().parent / "peers"
LOADING = 1200.0  # seconds for everything that is not timed

Result = TypeVar("Result")


class RunFailed(Exception):
    """A process of a benchmark ended without a result; the message has its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A runner of `benchmarks/peers`, and the interpreter that has its engine."""

    name: str = OURS
    python: Path = field(default_factory=lambda: Path(sys.executable))

    def run(self, task: Task) -> Outcome:
        """Compute `task` in a fresh process."""
        with tempfile.TemporaryDirectory(prefix="batchgen-benchmark-") as folder:
            path = Path(folder) / "task.json"
            task.write(path)
            # -P: a runner is called as its engine is, and must not be imported in its place
            command = [str(self.python), "-P", str(SCRIPTS / f"{self.name}.py"), str(path)]
            began = time.perf_counter()
            result = run_json(command, threads=task.threads, timeout=task.limit + LOADING)
            return Outcome.of(result, wall_seconds=time.perf_counter() - began)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The report of one process."""

    version: str
    # Of the work alone, from the process's start to it, and of the whole process.
    seconds: float
    load_seconds: float
    wall_seconds: float
    # Of each row's first answer; [] where the work was given up.
    tokens: list[list[int]]
    finished: bool
    # What only our engine counts.
    counters: dict[str, Any]

    @classmethod
    def of(cls, result: dict[str, Any], *, wall_seconds: float) -> Self:
        """Return what a runner's JSON says."""
        known = ("version", "seconds", "load_seconds", "tokens")
        counters = {name: result[name] for name in result.keys() - {*known, "finished"}}
        return cls(
            **{name: result[name] for name in known},
            finished=result.get("finished", True),
            wall_seconds=wall_seconds,
            counters=counters,
        )


def alternate(runs: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Return the results of `rounds` rounds of every run, the order turned about in between."""
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            results[name].append(runs[name]())
            print(f"round {turn + 1} of {rounds}: {name} done", file=sys.stderr, flush=True)
    return results


def median_seconds(outcomes: list[Outcome]) -> float:
    """Return the median time of the work."""
    return median(outcome.seconds for outcome in outcomes)


def speedup(ours: list[Outcome], theirs: list[Outcome]) -> float:
    """Return how many times as fast as the other we are, by medians; 2.0 is half the time.

    Where the other gave up it is the least that it can be.
    """
    return round(median_seconds(theirs) / median_seconds(ours), 3)


def run_json(command: list[str], *, threads: int, timeout: float) -> dict[str, Any]:
    """Run `command` and return the JSON object in its last such line; raise RunFailed."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"{command[-2]} was not done after {timeout:.0f} s.") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise RunFailed(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result
