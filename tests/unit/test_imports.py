"""Imports of light commands stay light, and packages say what is public."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import batchgen
from tests.support.repository import PACKAGES

HEAVY = {"torch", "transformers", "celery", "fastapi", "uvicorn"}


def loaded(*arguments: str) -> set[str]:
    """Return the top-level modules a fresh interpreter loads for this command line."""
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    # import time: self [us] | cumulative | imported package
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().partition(".")[0] for line in lines}


def test_heavy_modules_would_be_seen() -> None:
    assert "celery" in loaded("-c", "import celery")


@pytest.mark.parametrize(
    "module",
    [
        "batchgen",
        "batchgen.engine",
        "batchgen.engine.config",
        "batchgen.models",
        "batchgen.service",
        "batchgen_kernels",
        "batchgen_workers.service.local",  # `batchgen run` needs no queue but its own
    ],
)
def test_the_library_is_light(module: str) -> None:
    assert loaded("-c", f"import {module}") & HEAVY == set()


@pytest.mark.parametrize(
    "module",
    [
        "batchgen.api.server",
        "batchgen_workers.service.coordinator",
        "batchgen_workers.service.worker",
    ],
)
def test_the_extra_for_traces_is_one(module: str) -> None:
    """Redis's client loads it where it is there; ours must start where it is not."""
    probe = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk'] = sys.modules['opentelemetry.exporter'] = None\n"
        f"import {module}\n"
        "assert 'batchgen.telemetry.tracing' in sys.modules\n"
        "assert 'batchgen.telemetry.spans' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_door_is_lighter_still() -> None:
    ours = {"batchgen_workers", "batchgen_cli", "batchgen_kernels"}
    modules = loaded("-c", "import batchgen; dir(batchgen)")
    assert modules & (HEAVY | ours | {"pyarrow", "sqlalchemy", "pydantic"}) == set()


def test_the_door_shows_what_is_behind_it() -> None:
    assert batchgen.__all__ == sorted(batchgen.__all__) == dir(batchgen)
    assert "Dataset" in dir(batchgen) and "run" in dir(batchgen)
    with pytest.raises(AttributeError, match="no attribute 'ran'"):
        batchgen.ran  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["worker", "--help"],
        ["models", "ls", "-q"],
        ["config", "show", "--json"],
    ],
    ids=" ".join,
)
def test_commands_that_compute_nothing_are_light(arguments: list[str]) -> None:
    modules = loaded("-m", "batchgen_cli.main", *arguments)
    assert "click" in modules
    assert modules & HEAVY == set()


def public_packages() -> list[str]:
    """Return every package below the import roots, the roots included."""
    names = list(PACKAGES)
    for root in PACKAGES:
        path = importlib.import_module(root).__path__
        names += [found.name for found in pkgutil.walk_packages(path, f"{root}.") if found.ispkg]
    return sorted(names)


def public_names(module: ModuleType) -> list[str]:
    """Return what a module has for others, be it loaded late: no modules, nothing underscored."""
    members = {name: getattr(module, name) for name in {*vars(module), *dir(module)}}
    return sorted(
        name
        for name, value in members.items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    )


@pytest.mark.parametrize("name", public_packages())
def test_a_package_lists_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    listed = [entry for entry in getattr(module, "__all__", []) if entry != "__version__"]
    assert listed == sorted(listed)
    assert listed == public_names(module)
