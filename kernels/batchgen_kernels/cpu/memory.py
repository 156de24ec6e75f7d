"""Large pages of memory for what is large: fewer of them to look up, and to be given."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def prefer_huge_pages(tensor: Tensor) -> Tensor:
    """Advise the system to back `tensor`, which nothing has touched yet, by large pages.

    Whether it does is up to it. Not on the CPU, or not on Linux, nothing happens. Returns `tensor`.
    """
    advise = _madvise()
    if advise is not None and tensor.device.type == "cpu":
        page = mmap.PAGESIZE
        first = -(-tensor.data_ptr() // page) * page
        length = tensor.data_ptr() + tensor.nbytes - first
        if length > 0:
            advise(first, length, mmap.MADV_HUGEPAGE)  # an error leaves small pages
    return tensor


@cache
def _madvise() -> Any:
    if sys.platform != "linux":
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
