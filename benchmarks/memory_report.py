"""The figures of `memory.py` beside those of the paper."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.memory_contiguous import Use
from benchmarks.memory_paged import Paged
from benchmarks.memory_requests import CONTEXT

# Shares, from figures 2 and 15 and section 6.3.
PAPER_UTILISATION = {"maximum": 0.204, "power of two": 0.268, "oracle": 0.382, "paged": 0.963}
# {kind: {dataset: (at width 2, at width 6)}}
PAPER_SAVING = {
    "sampling": {"alpaca": (0.061, 0.098), "sharegpt": (0.162, 0.305)},
    "beams": {"alpaca": (0.376, 0.552), "sharegpt": (0.443, 0.663)},
}
# What is wanted of the paged pool. Blocks of 16 slots bound it: of each sequence's last block half
# is empty on average, which tells on Alpaca's short sequences.
WANTED_UTILISATION = {"alpaca": 0.88, "sharegpt": 0.96}

WIDE = 42  # characters of a dataset's column


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings that a run depends on."""

    seed: int
    sigma: float
    # By dataset.
    requests: dict[str, int]
    # Answers, or beams, for each prompt.
    widths: tuple[int, ...]
    block_size: int = 16
    # 15.7 thousand slots, which the paper has for OPT-13B.
    blocks: int = 981
    # More than the pool has room for, so that memory is what limits.
    max_num_seqs: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The result for one dataset."""

    # Means of the lengths drawn, in tokens.
    prompt: float
    answer: float
    # Share of all answers' tokens that are in answers longer than the recorded searches.
    beyond_record: float
    # By policy.
    contiguous: dict[str, Use]
    paged: Paged
    # By kind of decoding and width.
    shared: dict[str, dict[int, Paged]]


def missed(figures: dict[str, Figures]) -> list[str]:
    """Name the figures below what is wanted: WANTED_UTILISATION, and the paper's savings."""
    found = []
    for name, one in figures.items():
        share, wanted = one.paged.use.of_reserved, WANTED_UTILISATION[name]
        if share < wanted:
            found.append(f"utilisation, {name}: {share:.1%}, wanted {wanted:.0%}")
        for kind, replays in one.shared.items():
            paper = PAPER_SAVING[kind][name]
            found += [
                f"saving, {name}, {kind}, width {width}: {replay.saving:.1%}, "
                f"the paper has {_range(paper)}"
                for width, replay in replays.items()
                if replay.saving < paper[0]
            ]
    return found


def as_table(figures: dict[str, Figures], settings: Settings) -> str:
    """Return all figures for a person to read."""
    intro = [
        f"{settings.blocks} blocks of {settings.block_size} slots, context {CONTEXT}, log-normal "
        f"lengths (sigma {settings.sigma:.2f}), seed {settings.seed}",
        *(
            f"{name}: {settings.requests[name]} requests, on average {one.prompt:.0f} tokens in "
            f"and {one.answer:.0f} out"
            for name, one in figures.items()
        ),
    ]
    verdict = [f"missed: {line}" for line in missed(figures)] or ["every target met"]
    blocks = [intro, _utilisation(figures), _saving(figures, settings), verdict]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _utilisation(figures: dict[str, Figures]) -> list[str]:
    """Rows of: share of what is reserved, share of the whole pool, sequences at once."""
    heads = [f"{name}, of reserved{'of all':>9}{'running':>10}" for name in figures]
    lines = [_row("filled slots", heads, "paper")]
    for policy, paper in PAPER_UTILISATION.items():
        uses = [
            one.paged.use if policy == "paged" else one.contiguous[policy]
            for one in figures.values()
        ]
        cells = [f"{use.of_reserved:.1%}{use.of_all:>9.1%}{use.running:>10.1f}" for use in uses]
        lines.append(_row(policy, cells, f"{paper:.1%}"))
    return lines


def _saving(figures: dict[str, Figures], settings: Settings) -> list[str]:
    lines = [_row("saving by sharing", [f"{name}          paper" for name in figures], "")]
    for kind, papers in PAPER_SAVING.items():
        for width in settings.widths:
            cells = [
                f"{one.shared[kind][width].saving:.1%} {_range(papers[name]):>14}"
                for name, one in figures.items()
            ]
            lines.append(_row(f"{kind}, width {width}", cells, ""))
    return lines


def _range(shares: tuple[float, float]) -> str:
    return f"{100 * shares[0]:.1f}-{100 * shares[1]:.1f}%"


def _row(name: str, cells: list[str], last: str) -> str:
    return f"{name:<20}" + "".join(f"{cell:>{WIDE}}" for cell in cells) + f"{last:>10}".rstrip()
