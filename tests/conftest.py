"""Gives every test servers and databases, and hides the settings of the person who runs it."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

pytest_plugins = [
    "tests.support.api",
    "tests.support.commits",
    "tests.support.databases",
    "tests.support.fault_table",
    "tests.support.holding",
    "tests.support.one_server",
    "tests.support.permissions",
    "tests.support.servers",
    "tests.support.smollm2",
]

GPU_DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/kfd"))

_HOME = tempfile.TemporaryDirectory(prefix="batchgen-tests-")


def _scrub(environment: os._Environ[str]) -> None:
    """Take away every setting of batchgen's but the tests' own, and the folders of the user."""
    for name in [name for name in environment if name.startswith("BATCHGEN_")]:
        if not name.startswith("BATCHGEN_TEST_"):
            del environment[name]
    config = Path(environment.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    if (config / "pip" / "pip.conf").exists():  # where a test that builds a wheel finds packages
        environment.setdefault("PIP_CONFIG_FILE", str(config / "pip" / "pip.conf"))
    # two OpenMP teams on the same cores wait for each other most of the time
    environment["OMP_NUM_THREADS"] = "1"
    if not any(driver.exists() for driver in GPU_DRIVERS):
        environment["TRITON_INTERPRET"] = "1"  # looked at when triton is first imported
    environment["BATCHGEN_HOME"] = str(Path(_HOME.name) / "home")
    environment["XDG_CONFIG_HOME"] = str(Path(_HOME.name) / "config")
    environment["XDG_DATA_HOME"] = str(Path(_HOME.name) / "data")


# Before any module of batchgen is imported: some read the user's folders when they are.
_scrub(os.environ)
# A script's background job ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Remove the session's home."""
    _HOME.cleanup()
