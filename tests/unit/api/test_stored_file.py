"""A range that cannot be sent is refused in the shape of all errors."""

from __future__ import annotations

import pytest

from tests.support.api import OURS, Api
from tests.support.batches import requests, upload


@pytest.mark.parametrize(
    ("given", "status"),
    [("bytes=2-5", 206), ("bytes=-4", 206), ("null", 400), ("bytes=9999999-", 416)],
)
def test_ranges_of_a_stored_file(api: Api, given: str, status: int) -> None:
    ours = api.ours
    file = upload(api.service.for_tenant(OURS))
    answer = ours.get(f"/v1/files/file-{file.id}/content", headers={"range": given})
    assert answer.status_code == status
    data = requests()
    if status == 206:
        assert answer.content == (data[2:6] if given == "bytes=2-5" else data[-4:])
    else:
        assert answer.json()["error"]["code"] == "invalid_range"
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(data)}"
