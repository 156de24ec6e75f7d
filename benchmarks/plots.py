"""Draw what was measured: throughput by engine, and cost against size.

    python benchmarks/plots.py [RESULTS.json] [--into docs/images]

The results are what the other commands appended with `--save`; of each kind the newest counts.
Engines stand in pairs, since only those of one run, in alternation, compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"
IMAGES = FOLDER.parent / "docs" / "images"

OURS, THEIRS = "#20639b", "#b4b8bd"
SIZE = (8.0, 3.6)  # inches
# Of one drawing the same bytes, whenever it is drawn. Any: matplotlib names every key in a type.
FIXED: Any = {"svg.hashsalt": "batchgen", "svg.fonttype": "none", "font.size": 9}
METADATA = {"Date": None}

Entry = dict[str, Any]


def newest(entries: list[Entry], benchmark: str) -> dict[str | None, Any]:
    """Return {peer's name, None without one: the last result} of one kind of benchmark."""
    return {
        entry["result"].get("peer", {}).get("name"): entry["result"]
        for entry in entries
        if entry["benchmark"] == benchmark
    }


def draw_throughput(axes: Axes, results: dict[str | None, Any]) -> None:
    """Draw total tokens per second of each peer and of ours beside it."""
    pairs = [result for peer, result in results.items() if peer is not None]
    pairs.sort(key=lambda result: result["peer_ratio"])
    for i, result in enumerate(pairs):
        rates = [one["total_tokens_per_second"] for one in (result, result["peer"])]
        axes.bar([i - 0.2, i + 0.2], rates, 0.38, color=[OURS, THEIRS])
        axes.annotate(f"{result['peer_ratio']:.2f}x", (i - 0.2, rates[0]), ha="center", va="bottom")
    names = [f"batchgen\n{pair['peer']['name']} {pair['peer']['version']}" for pair in pairs]
    axes.set_xticks(range(len(pairs)), names)
    axes.set_ylabel("prompt and generated tokens/s")
    axes.set_title("W1, each engine in alternation with ours")


def draw_scaling(axes: Axes, result: Any) -> None:
    """Draw generated tokens per second against the number of rows."""
    sizes = result["sizes"]
    rates = [size["generated_tokens_per_second"] for size in sizes]
    axes.plot([size["rows"] for size in sizes], rates, "o-", color=OURS)
    axes.set(xlabel="rows", ylabel="generated tokens/s", title="throughput against size")
    axes.set_ylim(bottom=0)


def draw_scheduler(axes: Axes, result: Any) -> None:
    """Draw the scheduler's time a step against the rows that wait."""
    costs = [cost for cost in result["costs"] if cost["share"] is None]
    times = [cost["median_ms"] for cost in costs]
    axes.plot([cost["waiting"] for cost in costs], times, "o-", color=OURS)
    axes.set(xlabel="rows waiting", ylabel="ms a step", title="the scheduler against the queue")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)


def draw(entries: list[Entry], into: Path) -> list[Path]:
    """Draw what there are results for; return the files written."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    into.mkdir(parents=True, exist_ok=True)
    written = []
    throughput = newest(entries, "throughput")
    costs = [(draw_scaling, "scaling"), (draw_scheduler, "scheduler")]
    panels = [(d, list(newest(entries, name).values())) for d, name in costs]
    shown = [(d, results[-1]) for d, results in panels if results]
    with mpl.rc_context(FIXED):
        if throughput.keys() - {None}:
            figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
            draw_throughput(axes, throughput)
            written.append(_save(figure, into / "throughput.svg"))
        if shown:
            figure, grid = pyplot.subplots(
                1, len(shown), figsize=SIZE, layout="constrained", squeeze=False
            )
            for (panel, result), axes in zip(shown, grid[0], strict=True):
                panel(axes, result)
            written.append(_save(figure, into / "size.svg"))
    return written


def _save(figure: Any, path: Path) -> Path:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata=METADATA)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Draw and name the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--into", type=Path, default=IMAGES)
    args = parser.parse_args(arguments)
    for path in draw(json.loads(args.results.read_text(encoding="utf-8")), args.into):
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
