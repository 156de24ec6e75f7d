from __future__ import annotations

from pathlib import Path

import pytest
import torch

from batchgen.engine.network import device as module
from batchgen.engine.network.device import (
    cores,
    free_memory,
    resolve_device,
    resolve_dtype,
    set_threads,
)
from batchgen.errors import InvalidParameter

CPU = torch.device("cpu")
CUDA = torch.device("cuda:0")


def cpu_with(monkeypatch: pytest.MonkeyPatch, **features: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == CUDA


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "meta", ""])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter):
        resolve_device(name)


def test_auto_computes_float32_on_a_cpu_and_the_models_type_on_a_gpu() -> None:
    assert resolve_dtype("auto", CPU, torch.bfloat16).dtype == torch.float32
    assert resolve_dtype("auto", CUDA, torch.bfloat16).dtype == torch.bfloat16
    assert resolve_dtype("float16", CUDA, torch.bfloat16).dtype == torch.float16


def test_bfloat16_without_instructions_is_computed_in_float32_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu_with(monkeypatch, avx2=True, avx512_bf16=False)
    compute = resolve_dtype("bfloat16", CPU, torch.bfloat16)
    assert compute.dtype == torch.float32
    assert compute.note is not None and "bfloat16" in compute.note
    cpu_with(monkeypatch, avx512_bf16=True)
    compute = resolve_dtype("bfloat16", CPU, torch.bfloat16)
    assert (compute.dtype, compute.note) == (torch.bfloat16, None)


def test_free_memory_is_what_the_container_leaves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       9000 kB\nMemAvailable:   5000 kB\n")
    monkeypatch.setattr(module, "MEMINFO", meminfo)
    monkeypatch.setattr(module, "CGROUP", tmp_path)
    assert free_memory(CPU) == 5000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 2000000\ninactive_file 400000\n")
    assert free_memory(CPU) == 900_000


def test_cores_are_those_the_container_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "CGROUP", tmp_path)
    every = cores()
    assert every >= 1
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores() == every


@pytest.mark.parametrize(
    ("asked", "environment", "expected"), [(3, "2", 3), (0, "2", 2), (0, "", 5), (0, "0", 5)]
)
def test_threads_are_those_asked_for_then_the_environments_then_all(
    asked: int, environment: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr(module, "cores", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    set_threads(asked)
    assert taken == [expected]
