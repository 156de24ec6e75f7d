"""The compiled library: built once, kept, mended, and done without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from batchgen_kernels import registry
from batchgen_kernels.cpu import build, library
from batchgen_kernels.cpu.attention import CpuKernels
from batchgen_kernels.cpu.compiler import find_compiler
from batchgen_kernels.interface import LayerShape
from batchgen_kernels.layout import PoolLayout
from batchgen_kernels.reference import ReferenceKernels
from batchgen_kernels.registry import create_kernels, reason_for

ANSWER = 'extern "C" __attribute__((visibility("default"))) int answer() {{ return {}; }}\n'
LAYOUT = PoolLayout(
    layers=(LayerShape(query_heads=1, kv_heads=1, key_width=4, value_width=4, scale=1.0),),
    block_size=4,
)


@pytest.fixture(autouse=True)
def small_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compile something that takes no time."""
    source = tmp_path / "small.cpp"
    source.write_text(ANSWER.format(42))
    monkeypatch.setattr(build, "SOURCE", source)
    return source


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Let this process load the library anew, now and afterwards."""
    for load in (build.attempt, library.load):
        load.cache_clear()
    yield
    for load in (build.attempt, library.load):
        load.cache_clear()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the libraries that get compiled from now on."""
    made: list[Path] = []
    really = build.build

    def note(compiler: Path, path: Path) -> None:
        made.append(path)
        really(compiler, path)

    monkeypatch.setattr(build, "build", note)
    return made


def test_a_library_is_compiled_once(tmp_path: Path, compiled: list[Path]) -> None:
    assert build.open_library(tmp_path / "cache").answer() == 42
    assert build.open_library(tmp_path / "cache").answer() == 42
    assert len(compiled) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [compiled[0].name]


def test_another_source_is_another_library(
    tmp_path: Path, compiled: list[Path], small_source: Path
) -> None:
    build.open_library(tmp_path / "cache")
    small_source.write_text(ANSWER.format(43))
    assert build.open_library(tmp_path / "cache").answer() == 43
    assert len(set(compiled)) == 2


def test_another_cpu_or_compiler_is_another_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {build.digest(find_compiler())}
    other = tmp_path / "g++"
    other.write_text("#!/bin/sh\necho another compiler\n")
    other.chmod(0o755)
    names.add(build.digest(other))
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("processor : 0\nflags : fpu sse avx7\n")
    monkeypatch.setattr(build, "CPUINFO", cpu)
    names.add(build.digest(find_compiler()))
    assert len(names) == 3


@pytest.mark.parametrize("content", [b"", b"not a library", None], ids=["empty", "text", "cut"])
def test_a_damaged_library_is_built_again(
    tmp_path: Path, compiled: list[Path], content: bytes | None
) -> None:
    build.open_library(tmp_path / "cache")
    (path,) = compiled
    whole = path.read_bytes()
    path.unlink()  # the one that is loaded stays as it is
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert build.open_library(tmp_path / "cache").answer() == 42
    assert len(compiled) == 2
    assert build.is_whole(path)


def test_a_folder_that_cannot_be_written_is_done_without(
    tmp_path: Path, compiled: list[Path]
) -> None:
    (tmp_path / "file").touch()
    assert build.open_library(tmp_path / "file" / "cache").answer() == 42
    assert len(compiled) == 1


@pytest.mark.usefixtures("forgotten")
def test_no_compiler_means_reference_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    pool = torch.zeros(2, LAYOUT.elements)
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler") as warnings:
        kernels = create_kernels("auto", pool, LAYOUT)
        create_kernels("cpu", pool, LAYOUT)
    assert isinstance(kernels, ReferenceKernels)
    assert len(warnings) == 1
    reason = reason_for(kernels, "auto", pool, LAYOUT)
    assert reason == "slower: no C++ compiler on the PATH (g++, c++, clang++)"
    assert reason_for(kernels, "reference", pool, LAYOUT) == "as asked"


def test_a_name_without_a_branch_gets_no_other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SUPPORTED", (*registry.SUPPORTED, "metal"))
    with pytest.raises(ValueError, match="'metal'"):
        create_kernels("metal", torch.zeros(2, LAYOUT.elements), LAYOUT)


@pytest.mark.usefixtures("forgotten")
def test_a_library_that_no_disk_takes_means_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "open_library", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        kernels = create_kernels("auto", torch.zeros(2, LAYOUT.elements), LAYOUT)
    assert isinstance(kernels, ReferenceKernels)


@pytest.mark.usefixtures("forgotten")
def test_a_source_that_does_not_compile_means_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_source: Path
) -> None:
    monkeypatch.setattr(build, "user_cache_path", lambda _: tmp_path)
    small_source.write_text("this is no C++\n")
    with pytest.warns(RuntimeWarning, match="failed"):
        kernels = create_kernels("auto", torch.zeros(2, LAYOUT.elements), LAYOUT)
    assert isinstance(kernels, ReferenceKernels)
    assert list((tmp_path / "kernels").iterdir()) == []


def test_two_may_build_at_once(tmp_path: Path) -> None:
    def answer(_: int) -> int:
        return int(build.open_library(tmp_path / "cache").answer())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, range(4))) == [42] * 4
    (path,) = (tmp_path / "cache").iterdir()
    assert build.is_whole(path)


def test_auto_takes_the_cpu_for_float32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real source
    pool = torch.zeros(2, LAYOUT.elements)
    kernels = create_kernels("auto", pool, LAYOUT)
    assert isinstance(kernels, CpuKernels)
    assert reason_for(kernels, "auto", pool, LAYOUT) == "the fastest for this device"
    assert isinstance(create_kernels("reference", pool, LAYOUT), ReferenceKernels)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        kernels = create_kernels("auto", pool.to(dtype), LAYOUT)
        assert isinstance(kernels, ReferenceKernels)
        assert "float32 alone" in reason_for(kernels, "auto", pool.to(dtype), LAYOUT)


@pytest.mark.skipif(sys.platform != "linux", reason="the list of loaded libraries is Linux's")
def test_there_is_one_openmp_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two would be two pools of threads on the same cores."""
    monkeypatch.undo()  # the real source
    create_kernels("cpu", torch.zeros(2, LAYOUT.elements), LAYOUT)
    maps = Path("/proc/self/maps").read_text()
    files = {line.split()[-1] for line in maps.splitlines()}
    assert len([name for name in files if "libgomp" in name or "libomp" in name]) == 1
