"""Measures the engine's share of `batchgen run`, and the time until it starts.

    python benchmarks/service.py MODEL_DIR [--rows 128] [--workload FILE] [--rounds 3] [--json]
                                 [--peer NAME --peer-python PATH] [--save FILE]

Each round runs W1 through the whole path, input to parts, in a fresh folder and a fresh process:
SQLite, in-memory queue, worker, engine child. Busy is the time spent inside engine steps, divided
by the time from the first row handed to the engine to the last part committed. Start-up is the time
from the start of the process to that first row; the model was imported before. A peer computes the
same rows in a process of its own, and what is compared is the time of the whole process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.alternation import LOADING, OURS, alternate, run_json
from benchmarks.options import make_parser, parse, peer_of, publish
from benchmarks.task import LIMIT, Task
from benchmarks.workload import Messages, answer_lengths, chats, encode

ROWS = 128
MODEL = "benchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The times of one process, in seconds."""

    rows: int
    prompt_tokens: int
    generated_tokens: int
    steps: int
    startup_seconds: float  # start of the process to first row admitted
    seconds: float  # first row admitted to last part committed
    busy_seconds: float
    wall_seconds: float  # the whole process

    @property
    def busy_share(self) -> float:
        """The engine's share of the time in which there was something to do."""
        return self.busy_seconds / self.seconds


def compute(folder: Path, *, began: float, threads: int) -> dict[str, float]:
    """Run the prompts in `folder`, in a process that was started at `began`."""
    from sqlalchemy import func, select

    from batchgen.database.tables import parts
    from batchgen.service.run_folder import RunFolder
    from batchgen.service.submission import Submission
    from batchgen.settings import EngineSettings, Settings
    from batchgen_workers.service.local import run_local

    engine = EngineSettings(threads=threads, prefix_caching=False)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as out:
        run_folder = RunFolder(Path(out) / "out", Settings(home=folder / "home", engine=engine))
        with (folder / "prompts.jsonl").open("rb") as source:
            job = run_folder.open(source, Submission(model=MODEL, params={"temperature": 0}))
        run = run_local(run_folder.settings, job.public_id, models=run_folder.models)
        assert run.stats is not None
        assert run.first_row_at is not None
        with run_folder.service.store.database.begin() as connection:
            committed = connection.execute(select(func.max(parts.c.committed_at))).scalar_one()
        run_folder.service.close()
    return {
        "rows": run.job.n_rows,
        "prompt_tokens": run.stats.prompt_tokens,
        "generated_tokens": run.stats.generated_tokens,
        "steps": run.stats.steps,
        "startup_seconds": run.first_row_at - began,
        "seconds": committed - run.first_row_at,
        "busy_seconds": run.stats.busy_seconds,
    }


def start(folder: Path, *, threads: int) -> Run:
    """Compute the prompts in `folder` in a fresh process."""
    began, clock = time.time(), time.perf_counter()
    command = [sys.executable, __file__, str(folder), "--threads", str(threads)]
    command += ["--began", str(began)]
    result = run_json(command, threads=threads, timeout=LIMIT + LOADING)
    return Run(**result, wall_seconds=time.perf_counter() - clock)


def prepare(folder: Path, model: Path, conversations: list[Messages]) -> None:
    """Import the model into a home, and write the prompts with W1's answer lengths."""
    from batchgen.models.registry import Registry

    Registry(folder / "home" / "models").import_model(MODEL, model)
    lengths = answer_lengths(len(conversations))
    rows = [
        {"messages": messages, "max_tokens": length, "ignore_eos": True}
        for messages, length in zip(conversations, lengths, strict=True)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "prompts.jsonl").write_text(text, encoding="utf-8")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run ours and the peer in turn; return the figures, medians of the rounds."""
    conversations, peer = chats(args.rows, file=args.workload), peer_of(args)
    with tempfile.TemporaryDirectory(prefix="batchgen-service-") as temporary:
        prepare(Path(temporary), args.model, conversations)
        runs: dict[str, Callable[[], Any]] = {
            OURS: partial(start, Path(temporary), threads=args.threads)
        }
        if peer is not None:
            runs[peer.name] = partial(peer.run, _task(args, conversations))
        results = alternate(runs, args.rounds)
    ours: list[Run] = results[OURS]
    seconds = median(run.seconds for run in ours)
    total = ours[0].prompt_tokens + ours[0].generated_tokens
    result = {
        "rows": ours[0].rows,
        "rounds": args.rounds,
        "threads": args.threads,
        "busy_share": round(median(run.busy_share for run in ours), 4),
        "startup_seconds": round(median(run.startup_seconds for run in ours), 2),
        "wall_seconds": round(median(run.wall_seconds for run in ours), 2),
        "total_tokens_per_second": round(total / seconds, 1),
        "generated_tokens_per_second": round(ours[0].generated_tokens / seconds, 1),
        "runs": [asdict(run) for run in ours],
    }
    if peer is not None:
        theirs = results[peer.name]
        wall = median(outcome.wall_seconds for outcome in theirs)
        result["peer"] = {
            "name": peer.name,
            "version": theirs[0].version,
            "startup_seconds": round(median(outcome.load_seconds for outcome in theirs), 2),
            "wall_seconds": round(wall, 2),
        }
        result["peer_ratio"] = round(wall / median(run.wall_seconds for run in ours), 3)
    return result


def _task(args: argparse.Namespace, conversations: list[Messages]) -> Task:
    lengths = answer_lengths(len(conversations))
    rows = list(zip(encode(args.model, conversations), lengths, strict=True))
    return Task(model=args.model, rows=rows, threads=args.threads)


def describe(result: dict[str, Any]) -> str:
    """Return the figures in words."""
    text = (
        "{rows} rows: engine busy {busy_share:.1%} from the first row admitted to the last part "
        "committed, {total_tokens_per_second} tokens/s, {generated_tokens_per_second} generated; "
        "{startup_seconds} s from the start of the process to the first row, {wall_seconds} s in "
        "all"
    ).format_map(result)
    if "peer" in result:
        text += (
            "\n{peer[name]} {peer[version]}: {peer[startup_seconds]} s to the first row, "
            "{peer[wall_seconds]} s in all, {peer_ratio} times ours"
        ).format_map(result)
    return text


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; with --began compute one run, whose folder takes the model's place."""
    parser = make_parser(__doc__, rows=ROWS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    args = parse(parser, arguments)
    if args.began is not None:
        print(json.dumps(compute(args.model, began=args.began, threads=args.threads)))
        return 0
    result = measure(args)
    publish(args, "service", result, describe(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
