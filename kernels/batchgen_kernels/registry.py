"""The implementations of the kernels by name; each is imported when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchgen_kernels.interface import AttentionKernels
from batchgen_kernels.layout import PoolLayout

if TYPE_CHECKING:
    from torch import Tensor

SUPPORTED = ("reference",)


def create_kernels(name: str, pool: Tensor, layout: PoolLayout) -> AttentionKernels:
    """Return the kernels `name` over `pool`; ValueError names what there is."""
    if name == "reference":
        from batchgen_kernels.reference import ReferenceKernels

        return ReferenceKernels(pool, layout)
    raise ValueError(f"no kernels are named {name!r}; there are {', '.join(SUPPORTED)}")
