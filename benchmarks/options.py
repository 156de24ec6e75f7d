"""The options of every benchmark of speed, and the file for its figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.alternation import PEERS, Engine

ROUNDS = 3
CPUINFO = Path("/proc/cpuinfo")


def make_parser(document: str | None, *, rows: int | None = None) -> argparse.ArgumentParser:
    """Return a parser of the common options; the first line of `document` describes it."""
    parser = argparse.ArgumentParser(description=document.splitlines()[0] if document else None)
    parser.add_argument("model", type=Path, help="a folder with a model")
    if rows is not None:
        parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of which medians are taken")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: every core")
    parser.add_argument("--peer", choices=PEERS, help="another engine, in alternation with ours")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has that engine")
    parser.add_argument("--workload", type=Path, help="JSONL file with other prompts")
    parser.add_argument("--save", type=Path, help="JSON file that the figures are appended to")
    parser.add_argument("--json", action="store_true")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Return the arguments with the number of threads filled in; exit where they are wrong."""
    args = parser.parse_args(arguments)
    if (args.peer is None) != (args.peer_python is None):
        parser.error("--peer and --peer-python go together")
    if args.threads == 0:
        from batchgen.engine.network.device import cores

        given = os.environ.get("OMP_NUM_THREADS", "")
        args.threads = int(given) if given.isdecimal() and int(given) else cores()
    return args


def peer_of(args: argparse.Namespace) -> Engine | None:
    """Return the engine that runs beside ours, if one does."""
    if args.peer is None:
        return None
    # not resolved: the link of a virtual environment is what makes it one
    return Engine(name=args.peer, python=args.peer_python.absolute())


def publish(args: argparse.Namespace, benchmark: str, result: dict[str, Any], text: str) -> None:
    """Print the figures, as JSON or in words, and append them to the file of --save."""
    print(json.dumps(result) if args.json else text)
    if args.save is not None:
        save(args.save, benchmark, result)


def save(path: Path, benchmark: str, result: Any) -> None:
    """Append a result, with what it was measured on, to a JSON file."""
    saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"benchmark": benchmark, "at": now, "machine": machine(), "result": result}
    path.write_text(json.dumps([*saved, entry], indent=1) + "\n", encoding="utf-8")


def machine() -> str:
    """Return the processor's name and the cores that this process may use."""
    import torch

    from batchgen.engine.network.device import cores

    names = [platform.processor() or platform.machine()]
    if CPUINFO.exists():
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{cores()} cores of {names[0] if names else 'a CPU'}, torch {torch.__version__}"
