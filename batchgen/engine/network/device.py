"""The machine an engine runs on: device, compute type, threads, free memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from batchgen.errors import InvalidParameter

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
# CPU features without which arithmetic in a type is emulated, 44 to 500 times slower.
INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeType:
    """The type to compute in, with a note if it is not the one asked for."""

    dtype: torch.dtype
    note: str | None = None


def resolve_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda:N` means on this machine.

    Raise InvalidParameter if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidParameter(f"{name!r} is no device. Use auto, cpu or cuda:N.") from error
    if device.type not in {"cpu", "cuda"}:
        raise InvalidParameter(f"The engine runs on cpu and cuda, not on {device.type}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise InvalidParameter(f"There is no {name}: this machine has {found} usable GPUs.")
    return device


def resolve_dtype(name: str, device: torch.device, stored: torch.dtype) -> ComputeType:
    """Return the type to compute in, for a `name` of `auto` or a torch type.

    `stored` is the type of the model's weights. A CPU without instructions for a type gets float32.
    """
    if name == "auto":
        return ComputeType(dtype=torch.float32 if device.type == "cpu" else stored)
    dtype: torch.dtype = getattr(torch, name)
    if device.type == "cpu" and not _has_instructions(dtype):
        note = f"{name} was asked for, but this CPU has no instructions for it: computing float32"
        return ComputeType(dtype=torch.float32, note=note)
    return ComputeType(dtype=dtype)


def use_device(device: torch.device) -> None:
    """Make `device` the current GPU of this process, because Triton launches kernels there."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def set_threads(count: int) -> None:
    """Let torch use `count` CPU threads; 0 means OMP_NUM_THREADS, or all cores if it is unset."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(count or (int(given) if given.isdecimal() and int(given) else cores()))


def cores() -> int:
    """Return how many cores this process may use: its affinity, limited by a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        limit = int(quota) // int(period)
    except (OSError, ValueError):  # no cgroup v2, or no quota ("max")
        return allowed or 1
    return max(1, min(allowed or 1, limit))


def free_memory(device: torch.device) -> int:
    """Return how many bytes can still be allocated on `device`."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return min(_free_of_machine(), _free_of_cgroup())


def _has_instructions(dtype: torch.dtype) -> bool:
    features = torch.cpu.get_capabilities()
    return dtype not in INSTRUCTIONS or any(features.get(name) for name in INSTRUCTIONS[dtype])


def _free_of_machine() -> int:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:  # not Linux: assume that half of the memory is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) * 1024


def _free_of_cgroup() -> int:
    """Return the bytes below the container's limit; its page cache counts as free."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        details = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        return 2**63
    return max(0, limit - used + int(details.get("inactive_file", 0)))
