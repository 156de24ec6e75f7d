"""Huge pages for large tensors, so that the system allocates and looks up fewer pages."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def prefer_huge_pages(tensor: Tensor) -> Tensor:
    """Advise the system to use huge pages for `tensor`, which must be untouched; return it.

    The system may ignore the advice. Do nothing on another device or another system than Linux.
    """
    advise = _madvise()
    if advise is not None and tensor.device.type == "cpu":
        page = mmap.PAGESIZE
        first = -(-tensor.data_ptr() // page) * page
        length = tensor.data_ptr() + tensor.nbytes - first
        if length > 0:
            advise(first, length, mmap.MADV_HUGEPAGE)  # after an error the pages stay small
    return tensor


@cache
def _madvise() -> Any:
    if sys.platform != "linux":
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
