"""Compiled for GPUs that are not here, the Triton kernels fit them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

KERNELS = {"prefill", "decode", "merge", "write", "copy"}


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_nothing_spills_and_shared_memory_suffices(target: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)  # it compiles nothing
    arguments = ["--quick", "--json", "--target", target]
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.budget", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=280,
    )
    assert done.stderr == ""
    uses = json.loads(done.stdout)
    assert [use["kernel"] for use in uses if not use["fits"]] == []
    assert done.returncode == 0
    assert {use["kernel"].split()[0] for use in uses} == KERNELS
    assert all(use["registers"] > 8 for use in uses)


def test_the_interpreter_has_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.budget"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        timeout=280,
    )
    assert done.returncode == 2
    assert "unset it" in done.stderr
