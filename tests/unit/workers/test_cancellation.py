from __future__ import annotations

import threading

from batchgen_workers.cancellation import CancelToken


def test_callbacks_are_called_once_and_at_once_where_it_is_too_late() -> None:
    called: list[str] = []
    token = CancelToken()
    with token.calling(lambda: called.append("first")):
        assert called == []
        token.cancel()
        token.cancel()
        assert called == ["first"]
        with token.calling(lambda: called.append("late")):
            assert called == ["first", "late"]


def test_who_has_left_is_not_called() -> None:
    called: list[str] = []
    token = CancelToken()
    with token.calling(lambda: called.append("gone")):
        pass
    token.cancel()
    assert called == []


def test_a_waiter_is_woken_by_what_it_waits_for_or_by_the_end() -> None:
    token, condition = CancelToken(), threading.Condition()
    outcomes: list[bool] = []

    def wait() -> None:
        with condition:
            outcomes.append(token.wait_for(condition, lambda: False))

    waiter = threading.Thread(target=wait)
    waiter.start()
    token.cancel()
    waiter.join(10)
    assert outcomes == [False]
    with condition:
        assert token.wait_for(condition, lambda: True)  # what happened counts
