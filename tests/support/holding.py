"""Holding a fake engine half-way: it ends so many rows, and no more until the test lets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen_workers import testing


class Hold:
    """The file that every fake engine of a test looks at."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def after(self, rows: int) -> None:
        """Let each engine end this many rows from now on, or since its start, and no more."""
        pending = self.path.with_suffix(".new")
        pending.write_text(str(rows), encoding="ascii")
        pending.rename(self.path)

    def release(self) -> None:
        """Let every row end."""
        self.path.unlink(missing_ok=True)


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    """Return what holds the engines that this process starts; at first nothing is held."""
    held = Hold(tmp_path / "hold")
    monkeypatch.setenv(testing.HOLD, str(held.path))
    yield held
    held.release()
