"""The memory experiments of the PagedAttention paper, with our scheduler and no model.

    python benchmarks/memory.py [--json] [--sigma 0.83] [--seed 0]
    python benchmarks/memory.py --record MODEL_DIR

Requests with the lengths of the paper's two datasets (arXiv 2309.06180, sections 6.1 to 6.3) all
wait at once for a pool as large as the one the paper gives OPT-13B. Answers end at their true
length, which the scheduler does not know. Measured is the time in which the pool is what limits:
requests wait, and not all of those that run are young. Nothing is cached between requests.

Utilisation is filled slots over reserved slots, at one answer a prompt. The saving by sharing is
1 - blocks in use over blocks that the tables name, for several answers or beams a prompt. Beams
share as those of a model did: `--record` writes the file that they are replayed from.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import memory_beams, memory_contiguous, memory_paged, memory_requests
from benchmarks.memory_beams import WIDTHS, Recorded
from benchmarks.memory_contiguous import POLICIES
from benchmarks.memory_paged import Decoding, Paged, Replay
from benchmarks.memory_report import (
    PAPER_SAVING,
    PAPER_UTILISATION,
    WANTED_UTILISATION,
    Figures,
    Settings,
    as_table,
    missed,
)
from benchmarks.memory_requests import DATASETS, SIGMA, Dataset, Request

REQUESTS = {"alpaca": 1200, "sharegpt": 300}  # many times what runs at once


def measure(dataset: Dataset, settings: Settings, recorded: list[Recorded]) -> Figures:
    """Replay the requests of one dataset in every way."""
    requests = memory_requests.draw(
        dataset,
        settings.requests[dataset.name],
        seed=settings.seed,
        sigma=settings.sigma,
    )
    slots = settings.blocks * settings.block_size
    contiguous = {
        policy: memory_contiguous.replay(
            requests, policy, slots=slots, max_num_seqs=settings.max_num_seqs
        )
        for policy in POLICIES
    }
    drawn = sum(request.answer for request in requests)
    long = sum(request.answer for request in requests if request.answer > memory_beams.STEPS)
    return Figures(
        prompt=sum(request.prompt for request in requests) / len(requests),
        answer=drawn / len(requests),
        beyond_record=long / drawn,
        contiguous=contiguous,
        paged=_replay(requests, memory_paged.sampling(1), settings),
        shared={
            "sampling": {
                width: _replay(requests, memory_paged.sampling(width), settings)
                for width in settings.widths
            },
            "beams": {
                width: _replay(requests, memory_paged.beams(width, recorded), settings)
                for width in settings.widths
            },
        },
    )


def _replay(requests: list[Request], decoding: Decoding, settings: Settings) -> Paged:
    return Replay(
        requests,
        decoding,
        blocks=settings.blocks,
        block_size=settings.block_size,
        max_num_seqs=settings.max_num_seqs,
    ).run()


def as_json(figures: dict[str, Figures], settings: Settings) -> dict[str, Any]:
    """Return all figures as JSON values; shares are 0 to 1."""
    return {
        "settings": asdict(settings),
        "datasets": {name: asdict(one) for name, one in figures.items()},
        "paper": {"utilisation": PAPER_UTILISATION, "saving": PAPER_SAVING},
        "wanted_utilisation": WANTED_UTILISATION,
        "missed": missed(figures),
    }


def main() -> int:
    """Replay and print, or record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--record", type=Path, metavar="MODEL_DIR", help="write beams.json anew")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--sigma", type=float, default=SIGMA, help="spread of the lengths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.record is not None:
        memory_beams.record(args.record)
        return 0
    settings = Settings(seed=args.seed, sigma=args.sigma, requests=REQUESTS, widths=WIDTHS)
    recorded = memory_beams.load()
    figures = {name: measure(DATASETS[name], settings, recorded) for name in args.datasets}
    if args.json:
        print(json.dumps(as_json(figures, settings)))
    else:
        print(as_table(figures, settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
