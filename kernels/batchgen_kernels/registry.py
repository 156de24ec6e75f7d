"""The kernels by name; each implementation is imported at its first use."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from batchgen_kernels.interface import AttentionKernels
from batchgen_kernels.layout import PoolLayout

if TYPE_CHECKING:
    from torch import Tensor

SUPPORTED = ("reference", "cpu", "triton")


def create_kernels(name: str, pool: Tensor, layout: PoolLayout) -> AttentionKernels:
    """Return the kernels `name` over `pool`.

    "auto" returns the fastest kernels that support this pool. "cpu" needs a float32 pool in main
    memory and a C++ compiler; if either is missing, "reference" is returned, which supports all
    pools. "triton" needs a pool on a GPU, or Triton's interpreter. Raise ValueError if the name is
    unknown, or if "triton" does not support the pool.
    """
    fastest = "triton" if pool.device.type == "cuda" else "cpu"
    match fastest if name == "auto" else name:
        case "triton":
            kernels = _triton_kernels(pool, layout, required=name == "triton")
        case "cpu":
            kernels = _cpu_kernels(pool, layout)
        case "reference":
            kernels = None
        case _:
            known = ", ".join(("auto", *SUPPORTED))
            raise ValueError(f"no kernels are named {name!r}; there are {known}")
    return kernels or _reference_kernels(pool, layout)


def reason_for(kernels: AttentionKernels, asked: str, pool: Tensor, layout: PoolLayout) -> str:
    """Return, for a person, why `create_kernels(asked, pool, layout)` returned these kernels."""
    if asked == kernels.name:
        return "as asked"
    if kernels.name != "reference":
        return "the fastest for this device"
    return f"slower: {_obstacle(pool, layout)}"


def _obstacle(pool: Tensor, layout: PoolLayout) -> str:
    """Return the reason why no faster kernels support this pool."""
    import torch

    if pool.device.type == "cuda":
        return _without_triton(pool, layout) or "Triton kernels were not asked for"
    if pool.device.type != "cpu":
        return f"there are no other kernels for {pool.device.type}"
    if pool.dtype != torch.float32:
        return "the compiled kernels compute float32 alone"
    from batchgen_kernels.cpu.build import trouble

    return trouble()


def _without_triton(pool: Tensor, layout: PoolLayout) -> str | None:
    """Return the reason why the Triton kernels do not support a pool, None if they do."""
    if find_spec("triton") is None:
        return "triton is not installed: it comes with Linux"
    from batchgen_kernels.triton.kernels import unsupported

    return unsupported(pool, layout)


def _reference_kernels(pool: Tensor, layout: PoolLayout) -> AttentionKernels:
    from batchgen_kernels.reference import ReferenceKernels

    return ReferenceKernels(pool, layout)


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
