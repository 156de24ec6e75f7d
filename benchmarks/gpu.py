"""Measures the Triton kernels on this machine's GPU, and an engine over them.

    python benchmarks/gpu.py [MODEL] [--dtype bfloat16] [--repeat 20] [--rows 256] [--json]

Decode attention is counted in bytes of keys and values a second, beside a copy within the device,
whose bytes are read and written; prefill attention in operations of the scores and sums that a
causal mask leaves. MODEL is a model's folder: with one, an engine answers prompts of random tokens
of it, first eagerly, then with captured graphs. Medians of the repeats. Exits with 2 without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from batchgen.core.params import SamplingParams
from batchgen.core.rows import GenerationRequest
from batchgen.engine.config import EngineConfig
from batchgen.engine.engine import Engine
from batchgen_kernels.interface import LayerShape, StepBatch
from batchgen_kernels.layout import PoolLayout
from batchgen_kernels.registry import create_kernels

# One layer of an 8B model of the llama family.
SHAPE = LayerShape(query_heads=32, kv_heads=8, key_width=128, value_width=128, scale=128**-0.5)
PAGE = 16  # tokens of a block
COPIED = 2**30  # bytes
# (name, sequences, tokens of each)
DECODES = (("many short", 256, 1024), ("some", 64, 4096), ("few long", 2, 65536))
PREFILLS = (1024, 4096, 16384)  # tokens of one prompt
PROMPT, ANSWER = 256, 128  # tokens of the engine's rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing that was measured."""

    name: str
    value: float
    unit: str


def seconds(run: Callable[[], object], repeat: int) -> float:
    """Return the median time that the device takes for `run`, after three to warm up."""
    taken: list[float] = []
    for _ in range(3 + repeat):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")  # type: ignore[no-untyped-call]
        begin.record()
        run()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) / 1e3)
    return median(taken[3:])


def copy_bandwidth(repeat: int) -> Figure:
    """Return what a copy within the device reads and writes a second."""
    source = torch.ones(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    took = seconds(lambda: target.copy_(source), repeat)
    return Figure(name="copy", value=round(2 * COPIED / took / 1e9, 1), unit="GB/s")


def attend(starts: list[int], count: int, dtype: torch.dtype, repeat: int) -> float:
    """Return the seconds of one layer's attention: `count` new tokens after each of `starts`."""
    layout = PoolLayout(layers=(SHAPE,), block_size=PAGE)
    width = -(-(max(starts) + count) // PAGE)
    blocks = 1 + len(starts) * width
    pool = torch.randn(blocks, layout.elements, device="cuda").to(dtype)
    kernels = create_kernels("triton", pool, layout)
    scattered = 1 + np.random.default_rng(0).permutation(blocks - 1).astype(np.int32)
    kernels.plan(
        StepBatch(
            tables=scattered.reshape(len(starts), width),
            starts=np.array(starts, dtype=np.int32),
            counts=np.full(len(starts), count, dtype=np.int32),
        )
    )
    tokens = len(starts) * count
    query = torch.randn(tokens, SHAPE.query_heads, SHAPE.key_width, device="cuda").to(dtype)
    return seconds(lambda: kernels.attend(0, query), repeat)


def decode(name: str, sequences: int, length: int, dtype: torch.dtype, repeat: int) -> Figure:
    """Return the bytes of keys and values that a decode step reads a second."""
    took = attend([length - 1] * sequences, 1, dtype, repeat)
    slot = SHAPE.kv_heads * (SHAPE.key_width + SHAPE.value_width) * dtype.itemsize
    rate = sequences * length * slot / took / 1e9
    label = f"decode, {name}: {sequences} x {length}"
    return Figure(name=label, value=round(rate, 1), unit="GB/s")


def prefill(tokens: int, dtype: torch.dtype, repeat: int) -> Figure:
    """Return the operations of a prompt's attention a second."""
    took = attend([0], tokens, dtype, repeat)
    pairs = tokens * (tokens + 1) // 2  # of a query and a key that it sees
    operations = 2 * pairs * SHAPE.query_heads * (SHAPE.key_width + SHAPE.value_width)
    return Figure(
        name=f"prefill, {tokens}", value=round(operations / took / 1e12, 1), unit="TFLOP/s"
    )


def engine_rate(model: Path, dtype: str, rows: int, *, graphs: bool) -> Figure:
    """Return the tokens that an engine answers a second, every row at once."""
    config = EngineConfig(
        model_path=model,
        model_name=model.name,
        device="cuda:0",
        dtype=dtype,
        kernels="triton",
        cuda_graphs=graphs,
        max_num_seqs=rows,
    )
    engine = Engine(config)
    rng = np.random.default_rng(0)
    params = SamplingParams(temperature=0.0, max_tokens=ANSWER, ignore_eos=True)

    def answer() -> float:
        for key in range(rows):
            ids = rng.integers(10, 1000, PROMPT).tolist()
            engine.add(GenerationRequest(key=key, prompt_token_ids=ids, params=params))
        began = time.perf_counter()
        while engine.has_unfinished():
            engine.step()
        torch.cuda.synchronize()
        return time.perf_counter() - began

    answer()  # compiles, and captures
    name = f"engine, {rows} rows, {'graphs' if graphs else 'eager'}"
    return Figure(name=name, value=round(rows * ANSWER / answer(), 1), unit="tokens/s")


def measure(options: argparse.Namespace) -> list[Figure]:
    """Return every figure."""
    dtype: torch.dtype = getattr(torch, options.dtype)
    figures = [copy_bandwidth(options.repeat)]
    figures += [decode(*each, dtype, options.repeat) for each in DECODES]
    figures += [prefill(tokens, dtype, options.repeat) for tokens in PREFILLS]
    if options.model is not None:
        figures += [
            engine_rate(options.model, options.dtype, options.rows, graphs=graphs)
            for graphs in (False, True)
        ]
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="bfloat16")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("There is no GPU that torch can use: nothing was measured.", file=sys.stderr)
        return 2
    figures = measure(options)
    if options.json:
        device = torch.cuda.get_device_name()
        shown = [asdict(figure) for figure in figures]
        print(json.dumps({"device": device, "dtype": options.dtype, "figures": shown}, indent=2))
    else:
        for figure in figures:
            print(f"{figure.name:36}{figure.value:>12,.1f} {figure.unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
