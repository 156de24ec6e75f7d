"""The implementations of the kernels by name; each is imported when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchgen_kernels.interface import AttentionKernels
from batchgen_kernels.layout import PoolLayout

if TYPE_CHECKING:
    from torch import Tensor

SUPPORTED = ("reference", "cpu")


def create_kernels(name: str, pool: Tensor, layout: PoolLayout) -> AttentionKernels:
    """Return the kernels `name` over `pool`; ValueError names what there is.

    "auto" takes the fastest that serve this pool. "cpu" serves float32 in the machine's memory,
    where it has a C++ compiler; any other pool gets "reference", which serves them all.
    """
    if name not in ("auto", *SUPPORTED):
        known = ", ".join(("auto", *SUPPORTED))
        raise ValueError(f"no kernels are named {name!r}; there are {known}")
    kernels = None if name == "reference" else _cpu_kernels(pool, layout)
    if kernels is not None:
        return kernels
    from batchgen_kernels.reference import ReferenceKernels

    return ReferenceKernels(pool, layout)


def _cpu_kernels(pool: Tensor, layout: PoolLayout) -> AttentionKernels | None:
    import torch

    if pool.device.type != "cpu" or pool.dtype != torch.float32:
        return None
    from batchgen_kernels.cpu.attention import CpuKernels
    from batchgen_kernels.cpu.library import load

    library = load()
    return None if library is None else CpuKernels(library, pool, layout)
