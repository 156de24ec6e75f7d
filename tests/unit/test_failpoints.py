"""Failpoints do nothing unless asked, and then exactly what was asked."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from batchgen import failpoints
from batchgen.errors import InvalidParameter
from batchgen.failpoints import reach
from tests.support.repository import python_files


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def failures(name: str, *, times: int) -> list[bool]:
    """Return for each time the point is reached whether it fails."""
    seen = []
    for _ in range(times):
        try:
            reach(name)
        except OSError:
            seen.append(True)
        else:
            seen.append(False)
    return seen


def test_a_point_that_nobody_armed_does_nothing() -> None:
    failpoints.arm("part.committed=raise:EIO")
    reach("part.committing")


def test_raises_the_error_asked_for() -> None:
    failpoints.arm("part.committing=raise:ENOSPC")
    with pytest.raises(OSError, match="No space left") as raised:
        reach("part.committing")
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("", [True, True, True, True]),
        ("@2", [False, True, False, False]),
        ("@2-3", [False, True, True, False]),
    ],
)
def test_fails_when_asked(when: str, expected: list[bool]) -> None:
    failpoints.arm(f"row.answered=raise:EIO{when}, shard.fed=raise:EIO")
    assert failures("row.answered", times=4) == expected


@pytest.mark.parametrize(
    "action", ["", "=explode", "=raise:ENOTHING", "=pause:long", "=stop:x", "=kill@x"]
)
def test_a_wrong_specification_names_itself_and_the_remedy(action: str) -> None:
    text = f"shard.fed{action}"
    with pytest.raises(InvalidParameter, match="Write name=kill") as raised:
        failpoints.arm(text)
    assert text in raised.value.message


def test_a_point_that_does_not_exist_is_no_wish_that_is_never_granted() -> None:
    with pytest.raises(InvalidParameter, match=r"Did you mean 'part\.committing'"):
        failpoints.arm("part.comitting=kill")


def test_every_point_that_is_reached_is_known() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in python_files())
    reached = set(re.findall(r'\breach\("([a-z._]+)"\)', code))
    assert reached == failpoints.NAMES


def test_the_environment_arms_a_process() -> None:
    code = "from batchgen.failpoints import reach; reach('shard.fed'); reach('shard.fed')"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, failpoints.VARIABLE: "shard.fed=kill@2"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
