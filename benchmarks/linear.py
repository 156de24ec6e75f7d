"""GFLOP/s of a model's linear layers: packed ones against torch's, in alternation.

    python benchmarks/linear.py MODEL [--rows 1,8,64,512] [--threads 1] [--repeat 5] [--json]

Every linear layer but the head runs once a round on the same random rows, so all weights stream
from memory as they do in a step. The head is timed apart, in milliseconds. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from batchgen.engine.loading import load_network, quiet
from batchgen_kernels.cpu.library import load
from batchgen_kernels.cpu.linear import PackedLinear

Layer = Callable[[Tensor], Tensor]
ROWS = "1,4,8,16,32,64,128,512"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What was measured with some number of rows."""

    rows: int
    threads: int
    packed_gflops: float
    torch_gflops: float
    packed_head_ms: float
    torch_head_ms: float


def compute(layers: list[Layer], inputs: list[Tensor]) -> float:
    """Run every layer once; return the seconds."""
    began = time.perf_counter()
    for layer, rows in zip(layers, inputs, strict=True):
        layer(rows)
    return time.perf_counter() - began


def alternate(
    packed: list[PackedLinear], plain: list[nn.Linear], rows: int, repeat: int
) -> tuple[float, float]:
    """Return the median seconds of one round, packed and plain, after one round to warm up."""
    widths = {layer.in_features: torch.randn(rows, layer.in_features) for layer in plain}
    inputs = [widths[layer.in_features] for layer in plain]
    rounds = [(compute([*packed], inputs), compute([*plain], inputs)) for _ in range(repeat + 1)]
    ours, theirs = zip(*rounds[1:], strict=True)
    return median(ours), median(theirs)


def measure(network: nn.Module, rows: list[int], repeat: int) -> list[Rate]:
    """Return the rates for each number of rows."""
    library = load()
    assert library is not None
    plain = [module for module in network.modules() if isinstance(module, nn.Linear)]
    packed = [PackedLinear(library, layer) for layer in plain]
    operations = 2 * sum(layer.in_features * layer.out_features for layer in plain[:-1])
    rates = []
    for n in rows:
        ours, theirs = alternate(packed[:-1], plain[:-1], n, repeat)
        our_head, their_head = alternate(packed[-1:], plain[-1:], n, repeat)
        rates.append(
            Rate(
                rows=n,
                threads=torch.get_num_threads(),
                packed_gflops=round(operations * n / ours / 1e9, 1),
                torch_gflops=round(operations * n / theirs / 1e9, 1),
                packed_head_ms=round(our_head * 1e3, 1),
                torch_head_ms=round(their_head * 1e3, 1),
            )
        )
    return rates


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a folder with a model")
    parser.add_argument("--rows", default=ROWS, help="numbers of rows, with commas between")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object a number of rows")
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cpu")
    network = load_network(arguments.model, dtype=torch.float32, device=device)
    with torch.inference_mode():
        rates = measure(network, [int(n) for n in arguments.rows.split(",")], arguments.repeat)
    for rate in rates:
        print(json.dumps(asdict(rate)) if arguments.json else _sentence(rate))


def _sentence(rate: Rate) -> str:
    return (
        "{rows:>5} rows: {packed_gflops:6.1f} GFLOP/s packed, {torch_gflops:6.1f} torch; "
        "head {packed_head_ms:.1f} ms packed, {torch_head_ms:.1f} torch"
    ).format_map(asdict(rate))


if __name__ == "__main__":
    main()
