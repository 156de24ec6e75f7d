"""Lines per second and memory of `validate` and `submit`'s ingest, one core each.

    python benchmarks/ingest.py [--lines 1000000] [--json]

Writes a file of about 350 bytes a line to a temporary folder, then runs each of the two in a fresh
process pinned to one core. Storing, hashing and the search for duplicate ids are included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from batchgen.inputs.ingest import OnInvalid, ingest, validate
from batchgen.storage.storage import LocalStorage

WORDS = (
    *("river", "stone", "market", "winter", "letter", "garden", "engine", "morning", "bridge"),
    *("lantern", "harbour", "copper", "window", "teacher", "valley", "ticket", "forest", "kitchen"),
)
KINDS = ("validate", "ingest")
DEFAULTS = {"max_tokens": 64}
MODEL = "smollm2-135m"


def write_lines(path: Path, lines: int) -> None:
    """Write `lines` different lines: two OpenAI batch lines, a chat and a raw text in turn."""
    rng = random.Random(0)  # noqa: S311 - words, not secrets
    with path.open("w") as file:
        for i in range(lines):
            text = " ".join(rng.choices(WORDS, k=22)).capitalize() + "."
            chat = [
                {"role": "system", "content": "You are a careful assistant: answer briefly."},
                {"role": "user", "content": f"Rewrite in one sentence: {text}"},
            ]
            sampling = {"max_tokens": 64, "temperature": 0.7}
            row: dict[str, Any]
            if i % 4 < 2:
                body = {"model": MODEL, "messages": chat[1:], **sampling}
                url = "/v1/chat/completions"
                row = {"custom_id": f"request-{i}", "method": "POST", "url": url, "body": body}
            elif i % 4 == 2:
                row = {"id": f"q-{i}", "messages": chat, **sampling, "topic": "words"}
            else:
                row = {"prompt": f"{text} {text}", "max_tokens": 32, "source": {"page": i}}
            file.write(json.dumps(row) + "\n")


def measure(kind: str, path: Path) -> dict[str, Any]:
    """Run one of KINDS on `path` in this process, on one core; return what it took."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start, busy = time.perf_counter(), time.process_time()
    with path.open("rb") as source:
        if kind == "validate":
            n_rows = validate(source, defaults=DEFAULTS, model=MODEL).n_rows
        else:
            home = path.parent / "home"
            home.mkdir()
            storage = LocalStorage(home)
            n_rows = ingest(
                source,
                storage=storage,
                defaults=DEFAULTS,
                model=MODEL,
                on_invalid=OnInvalid.REFUSE,
            ).n_rows
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return {
        "command": kind,
        "lines": n_rows,
        "bytes_per_line": round(path.stat().st_size / n_rows),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(busy, 2),
        "lines_per_second": round(n_rows / seconds),
        "peak_rss_mib": round(mib, 1),
    }


def main() -> None:
    """Measure both, each in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="one JSON object a command")
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.file)))
        return
    with tempfile.TemporaryDirectory(prefix="batchgen-ingest-") as folder:
        path = Path(folder) / "prompts.jsonl"
        write_lines(path, arguments.lines)
        for kind in KINDS:
            command = [sys.executable, __file__, "--only", kind, "--file", str(path)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            result = json.loads(output)
            print(output.decode().strip() if arguments.json else _sentence(result))


def _sentence(result: dict[str, Any]) -> str:
    return (
        "{command:>8}: {lines:,} lines of {bytes_per_line} bytes in {seconds:.1f} s "
        "(CPU {cpu_seconds:.1f} s) = {lines_per_second:,} lines/s, peak {peak_rss_mib:.0f} MiB"
    ).format_map(result)


if __name__ == "__main__":
    main()
