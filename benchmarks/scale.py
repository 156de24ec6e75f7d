"""A job of a million rows through the whole path with an engine that takes no time.

    python benchmarks/scale.py [--rows 1000000] [--workers 1] [--database sqlite|postgresql]
                               [--database-url URL] [--broker-url URL] [--json] [--save FILE]

Brings its own PostgreSQL (or an SQLite file) and Valkey, starts a coordinator and workers with the
fake engine, submits the rows with `batchgen submit`, and waits for the dataset. Reports rows per
second, CPU time per row and resident memory of each process of ours (the coordinator as finaliser
while it writes the dataset), and checks that the dataset holds every row once. Growth is what
memory peaked at after row 200,000 over its peak between rows 100,000 and 200,000. Ends with exit
code 1 where a row is missing, doubled or an error.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from batchgen.core.states import JobState
from batchgen.dataset.manifest import read_manifest
from batchgen.dataset.verify import verify_dataset
from batchgen.jobs.records.job_records import JobRecord
from batchgen_workers.service.local_process import environment_of
from batchgen_workers.testing import FAST
from benchmarks.installation import DATABASES, Installation, installation
from benchmarks.options import publish
from benchmarks.watching import Sample, Watch

ROWS = 1_000_000
STEADY = 100_000  # rows from which on memory is to stay as it is
POLL = 0.25  # seconds between two looks
FINE = 0.05  # while a dataset is written: memory goes up and down with each row group
LIMIT = 3600  # seconds until a run counts as stuck
BATCHGEN = Path(sys.executable).with_name("batchgen")
MIB = 1 << 20

Figures = dict[str, Any]
Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(slots=True, kw_only=True)
class Run:
    """One job on one installation."""

    place: Installation
    rows: int
    prompts: Path
    watch: Watch = field(default_factory=Watch)
    submit_seconds: float = 0.0

    def start(self, workers: int) -> None:
        """Start the processes and wait until every worker has its engine."""
        self.watch.follow("coordinator", self.place.processes.coordinator().pid)
        started = [self.place.processes.worker(FAST) for _ in range(workers)]
        store = self.place.store
        _wait(lambda: len(store.workers.list(alive_within=LIMIT)) == workers)
        for number, worker in enumerate(started):
            (engine,) = worker.children()
            self.watch.follow(f"worker {number}", worker.pid)
            self.watch.follow(f"engine {number}", engine)
        self.watch.sample(0)

    def submit(self) -> JobRecord:
        """Submit the prompts as a user does."""
        began = time.monotonic()
        process = subprocess.Popen(
            [BATCHGEN, "submit", self.prompts, "--model", self.place.model.name, "-q"],
            env=environment_of(self.place.settings),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.watch.follow("submit", process.pid)
        size = self.prompts.stat().st_size
        while process.poll() is None:
            self.watch.sample(self.rows * _position(process.pid, self.prompts) // size, "submit")
            time.sleep(POLL)
        self.watch.leave("submit")
        said = process.communicate()[0].strip()
        self.submit_seconds = time.monotonic() - began
        assert process.returncode == 0, f"submit: exit {process.returncode}"
        return self.place.store.jobs.get(said)

    def await_end(self, job: JobRecord) -> JobRecord:
        """Look on until the job has ended."""
        store = self.place.store
        deadline = time.monotonic() + LIMIT
        while (job := store.jobs.by_id(job.id)).state in (JobState.QUEUED, JobState.RUNNING):
            self.watch.sample(store.jobs.progress(job.id).rows_done)
            assert time.monotonic() < deadline, f"{job.state} after {LIMIT} s"
            time.sleep(POLL)
        self._watch_finaliser(job)
        return store.jobs.by_id(job.id)

    def _watch_finaliser(self, job: JobRecord) -> None:
        """Look at the coordinator while it writes, under another name."""
        folder = self.place.home / "datasets" / job.public_id
        # by bytes, of which so many are a row
        looks: list[Sample] = []
        while not self.place.store.jobs.by_id(job.id).state.ended:
            if (look := self.watch.look("coordinator", _bytes_below(folder))) is not None:
                looks.append(look)
            time.sleep(FINE)
        total = _bytes_below(folder)
        for look in looks:
            self.watch.add("finaliser", replace(look, rows=self.rows * look.rows // total))


def write_prompts(path: Path, rows: int) -> None:
    """Write short prompts, chats and raw texts in turn, each for one token."""
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            text = f"Is {row} a prime number? Answer in one word."
            asked = f'"prompt":"{text}"'
            if row % 2:
                asked = f'"messages":[{{"role":"user","content":"{text}"}}]'
            file.write(f'{{"id":"q{row}",{asked},"max_tokens":1,"temperature":0}}\n')


def measure(args: argparse.Namespace) -> Figures:
    """Run the job and return the figures."""
    with installation(
        args.database, database_url=args.database_url, broker_url=args.broker_url
    ) as place:
        prompts = place.folder / "prompts.jsonl"
        write_prompts(prompts, args.rows)
        run = Run(place=place, rows=args.rows, prompts=prompts)
        run.start(args.workers)
        job = run.await_end(run.submit())
        assert job.state is JobState.COMPLETED, job.error
        assert job.dataset_path is not None
        return {
            "rows": args.rows,
            "database": args.database,
            "workers": args.workers,
            **_speed(run, job),
            "processes": _processes(run),
            **inspect(place.home / job.dataset_path, args.rows),
        }


def inspect(dataset: Path, rows: int) -> Figures:
    """Count what the dataset holds against what was asked."""
    lost, doubled = compare(_row_numbers(dataset), rows)
    return {
        "lost": lost,
        "doubled": doubled,
        "errors": sum(entry.rows or 0 for entry in read_manifest(dataset).error_files()),
        "unsound": verify_dataset(dataset),
    }


def compare(numbers: Iterable[Numbers], rows: int) -> tuple[int, int]:
    """Return how many of the row numbers 0 … rows - 1 are missing, and how many are too many."""
    found = np.zeros(rows, np.int64)
    for some in numbers:
        np.add.at(found, some, 1)
    return int((found == 0).sum()), int((found - 1).clip(0).sum())


def is_clean(figures: Figures) -> bool:
    """True if every row is there once, answered and as the manifest says."""
    return not any(figures[name] for name in ("lost", "doubled", "errors", "unsound"))


def _row_numbers(dataset: Path) -> Iterator[Numbers]:
    for path in sorted(dataset.glob("*/*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["row"]):
                yield batch.column(0).to_numpy()


def _speed(run: Run, job: JobRecord) -> Figures:
    assert job.finalizing_at is not None
    assert job.ended_at is not None
    compute = job.finalizing_at - job.created_at
    finalise = job.ended_at - job.finalizing_at
    seconds = run.submit_seconds + compute + finalise
    phases = {"submit": run.submit_seconds, "compute": compute, "finalise": finalise}
    return {
        "seconds": round(seconds, 1),
        "rows_per_second": round(run.rows / seconds),
        "phase_seconds": {name: round(value, 1) for name, value in phases.items()},
        "phase_rows_per_second": {name: round(run.rows / value) for name, value in phases.items()},
    }


def _processes(run: Run) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    for name in run.watch.samples:
        growth = run.watch.growth(name, after=STEADY)
        found[name] = {
            "cpu_microseconds_per_row": round(run.watch.cpu_seconds(name) * 1e6 / run.rows, 1),
            "peak_mib": round(run.watch.peak(name) / MIB, 1),
            "growth": None if growth is None else round(growth, 4),
        }
    return found


def _position(pid: int, path: Path) -> int:
    """Return how far a process has read a file."""
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if link.resolve() == path.resolve():
                info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text(encoding="utf-8")
                return int(info.split()[1])
    except OSError:
        return 0  # it has ended, or closed the file, meanwhile
    return 0


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.[tp]*") if path.is_file())


def _wait(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < deadline, f"it did not happen within {LIMIT} s"
        time.sleep(POLL)


def describe(figures: Figures) -> str:
    """Return the figures in words."""
    lines = [
        "{rows:,} rows on {database}, {workers} worker(s): {seconds} s, {rows_per_second:,} rows/s "
        "({phase_seconds}); {lost} lost, {doubled} doubled, {errors} errors".format_map(figures)
    ]
    for name, process in figures["processes"].items():
        growth = process["growth"]
        lines.append(
            f"{name:>12}: {process['cpu_microseconds_per_row']:6.1f} µs of CPU a row, peak "
            f"{process['peak_mib']:.1f} MiB"
            + ("" if growth is None else f", {growth:+.1%} from row {STEADY:,} on")
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether the dataset is whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--database", choices=DATABASES, default="postgresql")
    parser.add_argument("--database-url", default="", help="an empty database of that kind")
    parser.add_argument("--broker-url", default="", help="a Redis or Valkey that is there")
    parser.add_argument("--save", type=Path, help="JSON file that the figures are appended to")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    figures = measure(args)
    publish(args, "scale", figures, describe(figures))
    return 0 if is_clean(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
