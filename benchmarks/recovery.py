"""A worker killed with -9 half-way, and `batchgen run` killed with -9 and run again.

    python benchmarks/recovery.py MODEL_SOURCE [--questions FILE] [--rows 200] [--max-tokens 64]

Brings its own PostgreSQL and Valkey, a coordinator and two workers, all real processes. It submits
the questions, kills one worker when half of the rows are done, waits for the job to complete with
nobody's help, and checks the dataset: every row once, in input order, none an error; `verify` and
`fsck` clean. Then the same for `batchgen run`. Ends with exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from tests.support.servers import running_broker, running_postgres, server_folder

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "prompts.jsonl"
BATCHGEN = Path(sys.executable).with_name("batchgen")
MODEL = "recovery"
LEASE_TTL = 15  # seconds
POLL = 2.0  # seconds; each look is a process of its own
LIMIT = 3600  # seconds until a part of this counts as stuck

Environment = Mapping[str, str]


def call(*arguments: str | Path, env: Environment) -> str:
    """Run the command to its end and return what it printed; raise where it fails."""
    done = subprocess.run(
        [BATCHGEN, *arguments], env=env, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}: {done.stderr}"
    return done.stdout.strip()


@contextmanager
def process(*arguments: str | Path, env: Environment) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in the background; SIGTERM at the end if it is still there."""
    running = subprocess.Popen(
        [BATCHGEN, *arguments], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.terminate()
        running.wait(60)


def write_questions(source: Path, target: Path, *, rows: int, max_tokens: int) -> list[str]:
    """Write the prompt file of the job; return its ids in order."""
    lines: list[str] = []
    ids: list[str] = []
    for record in map(json.loads, source.read_text().splitlines()):
        if "question" in record:
            record = {"messages": [{"role": "user", "content": record["question"]}]}
        ids.append(f"q{len(ids)}")
        limits = {"id": ids[-1], "max_tokens": max_tokens, "temperature": 0}
        lines.append(json.dumps({**record, **limits}) + "\n")
        if len(ids) == rows:
            break
    target.write_text("".join(lines))
    return ids


def service_run(home: Path, questions: Path, ids: list[str]) -> dict[str, Any]:
    """Run the job on a broker, a database and two workers, one of which dies."""
    with ExitStack() as stack:
        folders = [stack.enter_context(server_folder(prefix)) for prefix in ("bgpg-", "bgvk-")]
        env = {
            **os.environ,
            "BATCHGEN_HOME": str(home),
            "BATCHGEN_DATABASE_URL": stack.enter_context(running_postgres(folders[0])),
            "BATCHGEN_BROKER_URL": stack.enter_context(running_broker(folders[1])),
            "BATCHGEN_LEASE_TTL": str(LEASE_TTL),
            "BATCHGEN_ENGINE__THREADS": "1",
            "BATCHGEN_ENGINE__KV_MEMORY": "2G",
        }
        call("db", "upgrade", env=env)
        stack.enter_context(process("coordinator", env=env))
        victim = stack.enter_context(process("worker", "--model", MODEL, env=env))
        stack.enter_context(process("worker", "--model", MODEL, env=env))
        start = time.monotonic()
        job = call("submit", questions, "--model", MODEL, "-q", env=env)
        done = wait_for_rows(job, len(ids) // 2, env=env)
        victim.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        call("wait", job, env=env)
        return {
            "killed_at_rows": done,
            "seconds_before_kill": round(killed - start, 1),
            "seconds_after_kill": round(time.monotonic() - killed, 1),
            **inspect(Path(call("results", job, "-q", env=env)), ids),
            "verify": call("verify", job, env=env),
            "fsck": call("fsck", env=env),
            "attempts": attempts(Path(call("results", job, "-q", env=env))),
        }


def local_run(home: Path, questions: Path, ids: list[str], out: Path) -> dict[str, Any]:
    """Run `batchgen run`, kill it half-way, and run it again."""
    env = {**os.environ, "BATCHGEN_HOME": str(home), "BATCHGEN_CHECKPOINT_INTERVAL": "5"}
    arguments = ("run", questions, "-o", out, "--model", MODEL)
    inner = {**env, "BATCHGEN_HOME": str(out / ".batchgen")}
    with process(*arguments, env=env) as first:
        wait_until_exists(out / ".batchgen" / "batchgen.db")
        done = wait_for_rows(only_job(inner), len(ids) // 2, env=inner)
        first.send_signal(signal.SIGKILL)
        first.wait()
    start = time.monotonic()
    call(*arguments, env=env)
    return {
        "killed_at_rows": done,
        "seconds_after_kill": round(time.monotonic() - start, 1),
        **inspect(out, ids),
        "verify": call("verify", out, env=env),
        "attempts": attempts(out),
    }


def only_job(env: Environment) -> str:
    """Return the one job of a home, as soon as there is one."""
    deadline = time.monotonic() + LIMIT
    while not (job := call("ls", "-q", env=env)):
        assert time.monotonic() < deadline, "no job was submitted"
        time.sleep(POLL)
    return job


def wait_until_exists(path: Path) -> None:
    """Return when the file is there."""
    deadline = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(POLL)


def wait_for_rows(job: str, rows: int, *, env: Environment) -> int:
    """Return the number of finished rows once it has reached `rows`."""
    deadline = time.monotonic() + LIMIT
    while True:
        status = json.loads(call("status", job, "--json", env=env))
        if status["rows"]["done"] >= rows:
            return int(status["rows"]["done"])
        assert time.monotonic() < deadline, status
        time.sleep(POLL)


def attempts(dataset: Path) -> dict[str, int]:
    """Return how many rows were answered at which attempt."""
    column = ds.dataset(dataset / "data", format="parquet").to_table(["attempt"])["attempt"]
    return {str(entry["values"]): entry["counts"] for entry in column.value_counts().to_pylist()}


def inspect(dataset: Path, ids: list[str]) -> dict[str, Any]:
    """Count what the dataset holds against what was asked."""
    table = ds.dataset(dataset / "data", format="parquet").to_table(["row", "custom_id"])
    rows, found = table["row"].to_pylist(), table["custom_id"].to_pylist()
    return {
        "rows": len(rows),
        "lost": len(set(ids) - set(found)),
        "twice": len(found) - len(set(found)),
        "errors": len(list((dataset / "errors").glob("*.parquet"))),
        "in_order": rows == list(range(len(ids))) and found == ids,
    }


def is_clean(result: Mapping[str, Any]) -> bool:
    """True if nothing was lost, doubled, disordered or an error."""
    bad = result["lost"] or result["twice"] or result["errors"]
    return bool(result["in_order"] and not bad)


def main() -> int:
    """Run both and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="what `batchgen models import` takes")
    parser.add_argument("--questions", type=Path, default=EXAMPLES)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchgen-recovery-") as temporary:
        folder = Path(temporary)
        questions = folder / "questions.jsonl"
        ids = write_questions(args.questions, questions, rows=args.rows, max_tokens=args.max_tokens)
        home = folder / "home"
        call("models", "import", MODEL, args.source, env={**os.environ, "BATCHGEN_HOME": str(home)})
        results = {
            "service": service_run(home, questions, ids),
            "run": local_run(home, questions, ids, folder / "out"),
        }
    for name, result in results.items():
        if args.json:
            print(json.dumps({"what": name, **result}))
        else:
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in result.items()))
    return 0 if all(map(is_clean, results.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
