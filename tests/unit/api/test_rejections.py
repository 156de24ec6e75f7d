"""An address that guesses keys is slowed down, and nobody else is."""

from __future__ import annotations

import pytest

from batchgen.api import rejections
from batchgen.api.errors import ApiError
from batchgen.api.rejections import BURST, Rejections
from tests.support.api import Api


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def refuse(rejections: Rejections, address: str, times: int) -> None:
    for _ in range(times):
        rejections.check(address, "guess")
        rejections.refused(address)


def test_refusals_run_out_and_come_back() -> None:
    clock = Clock()
    rejections = Rejections(clock)
    refuse(rejections, "1.2.3.4", int(BURST))
    with pytest.raises(ApiError) as refused:
        rejections.check("1.2.3.4", "guess")
    assert refused.value.status_code == 429
    assert refused.value.problem.headers == {"retry-after": "1"}
    rejections.check("5.6.7.8", "guess")
    clock.now += 2.0
    refuse(rejections, "1.2.3.4", 2)
    with pytest.raises(ApiError):
        rejections.check("1.2.3.4", None)


def test_a_key_that_was_right_is_looked_up_whatever_others_guess() -> None:
    rejections = Rejections(Clock())
    rejections.accepted("0123456789abcdef")
    refuse(rejections, "1.2.3.4", int(BURST))
    rejections.check("1.2.3.4", "0123456789abcdef")


def test_addresses_and_keys_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "ADDRESSES", 2)
    monkeypatch.setattr(rejections, "KEYS", 1)
    counted = Rejections(Clock())
    refuse(counted, "first", int(BURST))
    for address in ("second", "third"):
        counted.refused(address)
    counted.check("first", None)
    counted.accepted("old")
    counted.accepted("new")
    refuse(counted, "fourth", int(BURST))
    counted.check("fourth", "new")
    with pytest.raises(ApiError):
        counted.check("fourth", "old")


def test_guessing_ends_in_429_and_locks_no_known_key_out(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "BURST", 3.0)
    assert api.ours.get("/readyz").status_code == 200
    statuses = [api.anonymous.get("/readyz").status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert api.ours.get("/readyz").status_code == 200
    assert api.theirs.get("/readyz").status_code == 429  # its key was never right before
