from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.api.errors import ApiError
from batchgen.api.openai.ranges import read_range

WHOLE = b"0123456789"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", b"0123"),
        ("bytes=4-", b"456789"),
        ("bytes=-3", b"789"),
        ("bytes=-99", WHOLE),
        ("bytes=8-99", b"89"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 20])
def test_a_range_is_cut_from_the_pieces(header: str, expected: bytes, size: int) -> None:
    found = read_range(header, len(WHOLE))
    assert found is not None
    pieces = (WHOLE[at : at + size] for at in range(0, len(WHOLE), size))
    assert b"".join(found.of(pieces)) == expected
    assert found.headers["content-length"] == str(len(expected))
    assert found.headers["content-range"] == f"bytes {found.start}-{found.end - 1}/10"


@pytest.mark.parametrize("header", [None, "", "bytes=-", "lines=0-3", "bytes=0-1,3-4", "bytes=a-"])
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    assert read_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=5-4", 10), ("bytes=-0", 10)]
)
def test_a_range_outside_is_416(header: str, size: int) -> None:
    with pytest.raises(ApiError) as refused:
        read_range(header, size)
    assert refused.value.status_code == 416
    assert refused.value.problem.headers["content-range"] == f"bytes */{size}"


@given(first=st.integers(0, 30), last=st.integers(0, 30), cuts=st.lists(st.integers(1, 5)))
def test_any_range_of_any_pieces(first: int, last: int, cuts: list[int]) -> None:
    pieces, at = [], 0
    for cut in [*cuts, 20]:
        pieces.append(bytes(range(at, min(at + cut, 20))))
        at += cut
    whole = b"".join(pieces)
    try:
        found = read_range(f"bytes={first}-{last}", len(whole))
    except ApiError:
        assert whole[first : last + 1] == b""
        return
    assert found is not None
    assert b"".join(found.of(iter(pieces))) == whole[first : last + 1]
