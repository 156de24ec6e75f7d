"""The share of time the engine is busy in `batchgen run`.

    python benchmarks/busy.py MODEL_DIR [--workload FILE] [--rows 128] [--json]

Runs the whole path, input to parts, in a fresh folder: SQLite, in-memory queue, worker, engine
child. Busy is the time spent inside engine steps; it is divided by the time from the first row
handed to the engine to the last part committed. The workload is a prompt file; by default the
examples, greedy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from sqlalchemy import func, select

from batchgen.jobs.tables import parts
from batchgen.models.registry import Registry
from batchgen.service.run_folder import RunFolder
from batchgen.service.submission import Submission
from batchgen.settings import EngineSettings, Settings

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "prompts.jsonl"
MODEL = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run showed."""

    rows: int
    prompt_tokens: int
    generated_tokens: int
    steps: int
    seconds: float  # first row admitted to last part committed
    busy_seconds: float
    busy_share: float
    generated_tokens_per_second: float
    total_tokens_per_second: float


def measure(model: Path, workload: Path, *, rows: int, engine: EngineSettings) -> Result:
    """Run the first `rows` lines of `workload` and return the figures."""
    from batchgen_workers.local import run_local

    with tempfile.TemporaryDirectory(prefix="batchgen-busy-") as temporary:
        home = Path(temporary) / "home"
        Registry(home / "models").import_model(MODEL, model)
        prompts = Path(temporary) / "prompts.jsonl"
        with workload.open("rb") as lines:
            prompts.write_bytes(b"".join(islice(lines, rows)))
        folder = RunFolder(Path(temporary) / "out", Settings(home=home, engine=engine))
        with prompts.open("rb") as source:
            job = folder.open(source, Submission(model=MODEL, params={"temperature": 0}))
        run = run_local(folder.settings, job.public_id, models=folder.models)
        assert run.stats is not None
        assert run.first_row_at is not None
        with folder.service.store.database.begin() as connection:
            committed = connection.execute(select(func.max(parts.c.committed_at))).scalar_one()
        folder.service.close()
    stats, seconds = run.stats, committed - run.first_row_at
    return Result(
        rows=run.job.n_rows,
        prompt_tokens=stats.prompt_tokens,
        generated_tokens=stats.generated_tokens,
        steps=stats.steps,
        seconds=round(seconds, 2),
        busy_seconds=round(stats.busy_seconds, 2),
        busy_share=round(stats.busy_seconds / seconds, 4),
        generated_tokens_per_second=round(stats.generated_tokens / seconds, 1),
        total_tokens_per_second=round((stats.prompt_tokens + stats.generated_tokens) / seconds, 1),
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--workload", type=Path, default=EXAMPLES)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    engine = EngineSettings(threads=args.threads)
    result = measure(args.model, args.workload, rows=args.rows, engine=engine)
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(
            "{rows} rows in {seconds} s: engine busy {busy_share:.1%} of it, {steps} steps, "
            "{prompt_tokens} prompt and {generated_tokens} generated tokens, "
            "{total_tokens_per_second} tokens/s, {generated_tokens_per_second} generated "
            "tokens/s".format_map(asdict(result))
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
