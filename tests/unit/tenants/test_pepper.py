from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchgen.errors import Corrupt
from batchgen.tenants.pepper import PEPPER_FILE, Pepper


def test_a_home_has_none_until_a_key_is_made(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert Pepper(home).read() is None
    assert not home.exists()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    assert len(Pepper(tmp_path).ensure()) == 32
    assert stat.S_IMODE((tmp_path / PEPPER_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [PEPPER_FILE]


def test_whoever_makes_it_at_once_gets_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        peppers = set(pool.map(lambda _: Pepper(tmp_path).ensure(), range(8)))
    assert peppers == {Pepper(tmp_path).read()}


def test_a_damaged_one_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / PEPPER_FILE).write_text("0" * 63)
    for look in (Pepper(tmp_path).read, Pepper(tmp_path).ensure):
        with pytest.raises(Corrupt, match="backup"):
            look()
    assert (tmp_path / PEPPER_FILE).read_text() == "0" * 63
