"""A home with one model on each of the two databases, seen by two tenants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.service import Service
from batchgen.settings import Settings
from tests.support.homes import pin_model


@pytest.fixture
def service(tmp_path: Path, database_url: str) -> Iterator[Service]:
    """The service of one tenant."""
    home = tmp_path / "home"
    pin_model(home)
    service = Service(Settings(home=home, database_url=database_url))
    yield service.for_tenant("ours", key_id="k1")
    service.close()


@pytest.fixture
def theirs(service: Service) -> Service:
    """The same service for another tenant."""
    return service.for_tenant("theirs")
