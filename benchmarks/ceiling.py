"""The arithmetic ceiling: the fastest that this machine multiplies a model's matrices.

    python benchmarks/ceiling.py MODEL [--rows 512] [--threads 1] [--repeat 5] [--json]

All linear layers but the head run once a round on 512 rows, those that read the same rows as one,
in several layouts: as torch has them, packed by torch's library, transposed, and packed by us. The
best of them is the rate at which the arithmetic of a workload would be done if nothing else took
time: twice the parameters of the linear layers for each token, and of the head for each answer's.
With fewer --rows the layouts show what a step of so many rows makes of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

from benchmarks.alternation import LOADING, run_json
from benchmarks.task import Task

ROWS = 512
# Layers that read the same rows.
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))

Shape = tuple[int, int]  # outputs, inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """The linear layers of a model."""

    shapes: list[Shape]
    head: Shape

    @classmethod
    def of(cls, model: Path) -> Self:
        """Read the shapes of the model in a folder, without its weights."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(model, local_files_only=True)
        builder: Any = AutoModelForCausalLM
        with torch.device("meta"):
            network = builder.from_config(config)
        head = network.get_output_embeddings()
        shapes = [
            shape
            for parent in network.modules()
            for shape in _shapes_of_children(parent, without=head)
        ]
        return cls(shapes=shapes, head=(head.out_features, head.in_features))

    def operations(self, *, tokens: int, logits: int) -> int:
        """Return the additions and multiplications for `tokens`, `logits` of them with logits."""
        parameters = sum(outputs * inputs for outputs, inputs in self.shapes)
        return 2 * parameters * tokens + 2 * self.head[0] * self.head[1] * logits

    def operations_of(self, task: Task) -> int:
        """Return those of a workload in which every row has one answer."""
        tokens = task.prompt_tokens + task.generated_tokens
        return self.operations(tokens=tokens, logits=task.generated_tokens)


def _shapes_of_children(parent: Any, *, without: Any) -> list[Shape]:
    """Return the shapes of the linear layers right below `parent`, joined where they can be."""
    from torch import nn

    linears = {
        name: child
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and child is not without
    }
    shapes = []
    for names in TOGETHER:
        if all(name in linears for name in names):
            joined = [linears.pop(name) for name in names]
            outputs = sum(linear.out_features for linear in joined)
            shapes.append((outputs, joined[0].in_features))
    return shapes + [(linear.out_features, linear.in_features) for linear in linears.values()]


def measure(arithmetic: Arithmetic, *, rows: int, repeat: int) -> dict[str, float]:
    """Return {layout: GFLOP/s} on `rows` rows, each the median of `repeat` rounds in turn."""
    import torch

    weights = [torch.randn(shape) for shape in arithmetic.shapes]
    inputs = {width: torch.randn(rows, width) for width in {w.shape[1] for w in weights}}
    steps = _layouts(weights, inputs)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeat + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - began)
    operations = arithmetic.operations(tokens=rows, logits=0)
    return {name: operations / median(taken[1:]) / 1e9 for name, taken in times.items()}


def _layouts(weights: list[Any], inputs: dict[int, Any]) -> dict[str, Callable[[], object]]:
    """Return {layout: one pass over all weights}, for those that this machine has."""
    import torch

    from batchgen_kernels.cpu.library import load
    from batchgen_kernels.cpu.linear import PackedLinear

    linear = torch.nn.functional.linear
    turned = {width: rows.t().contiguous() for width, rows in inputs.items()}
    steps: dict[str, Callable[[], object]] = {
        "torch": lambda: [linear(inputs[w.shape[1]], w) for w in weights],
        "transposed": lambda: [torch.mm(w, turned[w.shape[1]]) for w in weights],
    }
    backend: Any = torch.backends.mkldnn
    if backend.is_available():
        library: Any = torch.ops.mkldnn
        packs = [library._reorder_linear_weight(w, ROWS) for w in weights]  # for any rows
        pairs = [(inputs[w.shape[1]], pack) for w, pack in zip(weights, packs, strict=True)]
        steps["torch, packed"] = lambda: [
            library._linear_pointwise(rows, pack, None, "none", [], "") for rows, pack in pairs
        ]
    if (ours := load()) is not None:
        layers = [PackedLinear(ours, _layer(w)) for w in weights]
        steps["batchgen, packed"] = lambda: [layer(inputs[layer.in_features]) for layer in layers]
    return steps


def _layer(weight: Any) -> Any:
    from torch import nn

    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def run(model: Path, *, threads: int) -> dict[str, float]:
    """Measure in a fresh process; return {layout: GFLOP/s}."""
    command = [sys.executable, __file__, str(model), "--json", "--threads", str(threads)]
    rates: dict[str, float] = run_json(command, threads=threads, timeout=LOADING)
    return rates


def main() -> None:
    """Measure one model's matrices."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a folder with a model")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        rates = measure(Arithmetic.of(args.model), rows=args.rows, repeat=args.repeat)
    if args.json:
        print(json.dumps({name: round(rate, 1) for name, rate in rates.items()}))
        return
    for name, rate in rates.items():
        print(f"{name:>18}: {rate:6.1f} GFLOP/s")


if __name__ == "__main__":
    main()
