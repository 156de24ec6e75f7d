"""Compiles the kernels without a GPU and reads the registers and shared memory they need.

    python -m tests.kernels.budget [--quick] [--json] [--target sm_90]

The exit status is 1 if a kernel spills registers or needs more shared memory than the GPU has.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from batchgen_kernels.interface import LayerShape
from batchgen_kernels.triton import attention, cache
from batchgen_kernels.triton.kernels import COPY_CHUNK
from batchgen_kernels.triton.tiling import attend_spec, choose_tile, interpreted, write_spec

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}  # bytes for one program
TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
HEAD = f"{'target':8}{'kernel':44}{'warps':>6}{'registers':>10}{'spilled':>9}{'shared':>9}"

PAGE = 16
LLAMA = LayerShape(query_heads=32, kv_heads=8, key_width=128, value_width=128, scale=0.1)
GEMMA = replace(LLAMA, key_width=256, value_width=256, window=4096, softcap=50.0)
GPT_OSS = replace(
    LLAMA, query_heads=64, key_width=64, value_width=64, window=128, sinks=torch.zeros(64)
)
PHI = replace(LLAMA, query_heads=32, kv_heads=32, key_width=96, value_width=96)
QWEN = replace(LLAMA, query_heads=128, key_width=80, value_width=80)
DEEPSEEK = replace(LLAMA, kv_heads=32, key_width=192)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One kernel, as it would be compiled for one model."""

    name: str
    kernel: Any
    # {argument: type}; pointers and strides are multiples of 16, the rest of nothing.
    signature: dict[str, str]
    spec: Any
    warps: int = 4
    stages: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """The resources that one compiled kernel needs."""

    target: str
    kernel: str
    # Of one thread.
    registers: int
    spilled_bytes: int
    # Of one program, in bytes.
    shared: int
    warps: int

    @property
    def fits(self) -> bool:
        """True if no register spills and the GPU has enough shared memory."""
        return self.spilled_bytes == 0 and self.shared <= SHARED[self.target]


def attend(
    name: str,
    shape: LayerShape,
    dtype: torch.dtype,
    target: str,
    *,
    decode: bool = False,
    splits: int = 1,
) -> Build:
    """Return the attention kernel of a layer, as `TritonKernels` launches it."""
    tile = choose_tile(shape, dtype, decode=decode)
    hip = TARGETS[target].backend == "hip"
    element = TYPES[dtype]
    signature = dict.fromkeys(("tops", "sums", "sinks"), "*fp32")
    signature |= dict.fromkeys(("query", "keys", "values"), element)
    signature |= dict.fromkeys(("tables", "items"), "*i32")
    signature |= dict.fromkeys(("block_stride", "token_stride", "head_stride"), "i32")
    signature |= {"out": element if splits == 1 else "*fp32", "factor": "fp32", "cap": "fp32"}
    return Build(
        name=f"{'decode' if decode else 'prefill'} {name}",
        kernel=attention.attend,
        signature=signature,
        spec=attend_spec(shape, tile, splits=splits, page=PAGE, dtype=dtype, hip=hip),
        warps=tile.warps,
        stages=tile.stages,
    )


def quick_builds(target: str) -> Iterator[Build]:
    """Yield builds of each kernel and of each attention tile.

    Every option takes registers, and so do widths that are no power of two; either may be what a
    tile has no room for.
    """
    half, single = torch.bfloat16, torch.float32
    everything = replace(GEMMA, sinks=torch.zeros(32))
    narrow = replace(everything, key_width=128, value_width=128)
    for dtype, name in ((half, "bfloat16"), (single, "float32")):
        for shape, width in ((narrow, 128), (everything, 256)):
            label = f"{name} {width}, all options"
            yield attend(label, shape, dtype, target)
            yield attend(f"{label}, splits", shape, dtype, target, decode=True, splits=8)
    yield attend("float32 128", LLAMA, single, target)
    yield attend("float32 96", PHI, single, target)
    yield from small_builds(target)


def small_builds(target: str) -> Iterator[Build]:
    """Yield builds of the kernels that merge, store and copy."""
    half = TYPES[torch.bfloat16]
    spec = attend("", GEMMA, torch.bfloat16, target, decode=True, splits=32).spec
    parts = dict.fromkeys(("parts", "tops", "sums"), "*fp32")
    yield Build(
        name="merge 256, 32 splits",
        kernel=attention.merge,
        signature={"out": half, **parts},
        spec=spec,
    )
    signature = dict.fromkeys(("keys", "values", "key", "value"), half) | {"slots": "*i32"}
    strides = [name for name in cache.write.arg_names if name.endswith("_stride")]
    for shape, name in ((LLAMA, "128"), (GEMMA, "256"), (PHI, "96")):
        yield Build(
            name=f"write {name}",
            kernel=cache.write,
            signature=signature | dict.fromkeys(strides, "i32") | {"rows": "i32"},
            spec=write_spec(shape, page=PAGE),
        )
    yield Build(
        name="copy",
        kernel=cache.copy,
        signature={"pool": half, "pairs": "*i32", "elements": "i32"},
        spec=COPY_CHUNK,
    )


def all_builds(target: str) -> Iterator[Build]:
    """Yield the builds of well-known models in every type, and the quick ones."""
    shapes = {
        "llama 128": LLAMA,
        "gemma 256": GEMMA,
        "gpt-oss 64": GPT_OSS,
        "phi 96": PHI,
        "qwen 80": QWEN,
        "deepseek 192/128": DEEPSEEK,
    }
    for dtype in TYPES:
        for name, shape in shapes.items():
            label = f"{name} {str(dtype).removeprefix('torch.')}"
            yield attend(label, shape, dtype, target)
            yield attend(label, shape, dtype, target, decode=True)
            yield attend(f"{label}, splits", shape, dtype, target, decode=True, splits=8)
    yield from quick_builds(target)


def measure(build: Build, target: str) -> Use:
    """Compile `build` for `target` and return the resources it needs."""
    names = build.kernel.arg_names
    types = {**build.signature, names[-1]: "constexpr"}
    aligned = (
        i for i, name in enumerate(names) if types[name][0] == "*" or name.endswith("_stride")
    )
    source = ASTSource(
        build.kernel,
        {name: types[name] for name in names},
        constexprs={names[-1]: build.spec},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {"num_warps": build.warps, "num_stages": build.stages}
    compiled = triton.compile(source, target=TARGETS[target], options=options)
    if TARGETS[target].backend == "hip":
        registers, spilled = _read_amd(compiled.asm["amdgcn"])
    else:
        registers, spilled = _read_nvidia(compiled.asm["cubin"])
    return Use(
        target=target,
        kernel=build.name,
        registers=registers,
        spilled_bytes=spilled,
        shared=compiled.metadata.shared,
        warps=build.warps,
    )


def _read_nvidia(cubin: bytes) -> tuple[int, int]:
    """Return the registers of a thread, and the bytes of it that live in memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", done.stdout)
    assert found is not None, done.stdout
    registers, stack, local = map(int, found.groups())
    return registers, stack + local


def _read_amd(assembly: str) -> tuple[int, int]:
    """Return the vector registers of a thread, and the bytes of it that live in memory.

    Spilled scalar registers are kept in lanes of vector ones, which costs no memory.
    """

    def value(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        assert found is not None, name
        return int(found[1])

    spilled = 4 * value("vgpr_spill_count") + value("private_segment_fixed_size")
    return value("vgpr_count"), spilled


def line(use: Use) -> str:
    """Return one line of the table."""
    return (
        f"{use.target:8}{use.kernel:44}{use.warps:>6}{use.registers:>10}"
        f"{use.spilled_bytes:>9}{use.shared:>9}{'' if use.fits else '  does not fit'}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one build of each tile only")
    parser.add_argument("--target", choices=[*TARGETS], help="compile for this one only")
    parser.add_argument("--json", action="store_true", help="write JSON")
    options = parser.parse_args(arguments)
    if interpreted():
        sys.stderr.write("TRITON_INTERPRET=1 compiles nothing: unset it.\n")
        return 2
    builds = quick_builds if options.quick else all_builds
    targets = [options.target] if options.target else [*TARGETS]
    uses = [measure(build, target) for target in targets for build in builds(target)]
    if options.json:
        text = json.dumps([{**asdict(use), "fits": use.fits} for use in uses], indent=2)
    else:
        text = "\n".join([HEAD, *(line(use) for use in uses)])
    sys.stdout.write(f"{text}\n")
    return 0 if all(use.fits for use in uses) else 1


if __name__ == "__main__":
    sys.exit(main())
