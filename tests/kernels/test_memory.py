"""Advice on large pages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from batchgen_kernels.cpu.memory import prefer_huge_pages

LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


def test_contents_and_address_stay() -> None:
    for size in (0, 1, 100, 1 << 20):
        tensor = torch.arange(size)
        address = tensor.data_ptr()
        assert prefer_huge_pages(tensor) is tensor
        assert tensor.data_ptr() == address
        assert torch.equal(tensor, torch.arange(size))


@pytest.mark.skipif(not LARGE_PAGES.exists(), reason="this system has no large pages to ask for")
def test_the_system_is_told() -> None:
    tensor = prefer_huge_pages(torch.empty(1 << 24))
    middle = tensor.data_ptr() + tensor.nbytes // 2
    flags: list[str] = []
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= middle < end
        elif first == "VmFlags:" and inside:
            flags = line.split()[1:]
    assert "hg" in flags
