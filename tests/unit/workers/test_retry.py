from __future__ import annotations

import pytest

from batchgen.errors import (
    BrokerUnavailable,
    DatabaseDamaged,
    DatabaseUnavailable,
    Fenced,
    SchemaMismatch,
    StoreMismatch,
)
from batchgen_workers import retry
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.retry import may_come_back, retry_while_unavailable


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.001)


class Flaky:
    """Fails as often as told, then returns."""

    def __init__(self, failures: int, error: type[Exception] = DatabaseUnavailable) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return "done"


def test_an_absent_database_is_waited_for() -> None:
    action = Flaky(20)
    assert retry_while_unavailable(action, what="a test", token=CancelToken()) == "done"
    assert action.calls == 21


def test_any_other_error_is_the_callers() -> None:
    action = Flaky(1, Fenced)
    with pytest.raises(Fenced):
        retry_while_unavailable(action, what="a test", token=CancelToken())
    assert action.calls == 1


def test_giving_up_ends_the_wait_with_the_reason() -> None:
    token = CancelToken()
    token.cancel()
    action = Flaky(1_000_000)
    with pytest.raises(DatabaseUnavailable):
        retry_while_unavailable(action, what="a test", token=token)
    assert action.calls == 1


def test_a_last_attempt_is_made_even_when_it_is_late() -> None:
    token = CancelToken()
    token.cancel()
    assert retry_while_unavailable(Flaky(0), what="a test", token=token) == "done"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DatabaseUnavailable, True),
        (DatabaseDamaged, False),  # waiting mends no file
        (SchemaMismatch, False),
        (StoreMismatch, False),
        (BrokerUnavailable, False),
        (ConnectionError, False),  # the layer below names what is unavailable
    ],
)
def test_a_start_waits_for_an_absent_database_and_for_nothing_else(
    error: type[Exception], expected: bool
) -> None:
    assert may_come_back(error()) is expected
