"""A home without an engine, and views of jobs made up."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.service.submission import Submission
from batchgen.settings import Settings
from tests.support.homes import pin_model, prompts


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The library of a fresh home with one model named `tiny`."""
    home = tmp_path / "home"
    pin_model(home)
    service = Service(Settings(home=home))
    yield service
    service.close()


@pytest.fixture
def submit(service: Service) -> Callable[..., JobRecord]:
    """Submit a prompt file: `submit(n_rows, **fields of Submission)`."""

    def submit(rows: int = 4, **asked: object) -> JobRecord:
        fields = {"model": "tiny", **asked}
        return service.submit(io.BytesIO(prompts(rows)), Submission(**fields))  # type: ignore[arg-type]

    return submit
