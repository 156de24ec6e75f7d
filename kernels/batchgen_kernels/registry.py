"""The implementations of the kernels by name; each is imported when it is first asked for."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from batchgen_kernels.interface import AttentionKernels
from batchgen_kernels.layout import PoolLayout

if TYPE_CHECKING:
    from torch import Tensor

SUPPORTED = ("reference", "cpu", "triton")


def create_kernels(name: str, pool: Tensor, layout: PoolLayout) -> AttentionKernels:
    """Return the kernels `name` over `pool`; ValueError says what there is, or what is missing.

    "auto" takes the fastest that serve this pool. "cpu" serves float32 in the machine's memory,
    where it has a C++ compiler; any other pool gets "reference", which serves them all. "triton"
    serves pools on a GPU, and others under Triton's interpreter alone: it refuses what it cannot
    serve, while "auto" takes "reference" then.
    """
    if name not in ("auto", *SUPPORTED):
        known = ", ".join(("auto", *SUPPORTED))
        raise ValueError(f"no kernels are named {name!r}; there are {known}")
    kernels = None
    if name == "triton" or (name == "auto" and pool.device.type == "cuda"):
        kernels = _triton_kernels(pool, layout, required=name == "triton")
    elif name != "reference":
        kernels = _cpu_kernels(pool, layout)
    if kernels is not None:
        return kernels
    from batchgen_kernels.reference import ReferenceKernels

    return ReferenceKernels(pool, layout)


def reason_for(kernels: AttentionKernels, asked: str, pool: Tensor, layout: PoolLayout) -> str:
    """Return why `create_kernels(asked, pool, layout)` gave these kernels, for a person to read."""
    if asked == kernels.name:
        return "as asked"
    if kernels.name != "reference":
        return "the fastest for this device"
    return f"slower: {_obstacle(pool, layout)}"


def _obstacle(pool: Tensor, layout: PoolLayout) -> str:
    """Return why nothing faster serves this pool."""
    import torch

    if pool.device.type == "cuda":
        return _without_triton(pool, layout) or "Triton kernels were not taken"
    if pool.device.type != "cpu":
        return f"there are no other kernels for {pool.device.type}"
    if pool.dtype != torch.float32:
        return "the compiled kernels compute float32 alone"
    from batchgen_kernels.cpu.build import trouble

    return trouble()


def _without_triton(pool: Tensor, layout: PoolLayout) -> str | None:
    """Return why the Triton kernels cannot serve a pool, None where they can."""
    if find_spec("triton") is None:
        return "triton is not installed: it comes with Linux"
    from batchgen_kernels.triton.kernels import unsupported

    return unsupported(pool, layout)


def _triton_kernels(pool: Tensor, layout: PoolLayout, *, required: bool) -> AttentionKernels | None:
    reason = _without_triton(pool, layout)
    if reason is None:
        from batchgen_kernels.triton.kernels import TritonKernels

        return TritonKernels(pool, layout)
    if required:
        raise ValueError(reason)
    return None


def _cpu_kernels(pool: Tensor, layout: PoolLayout) -> AttentionKernels | None:
    import torch

    if pool.device.type != "cpu" or pool.dtype != torch.float32:
        return None
    from batchgen_kernels.cpu.attention import CpuKernels
    from batchgen_kernels.cpu.library import load

    library = load()
    return None if library is None else CpuKernels(library, pool, layout)
