from __future__ import annotations

import pytest

from batchgen_cli.formats import count, duration, moment, percent, rate, short_id, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-3, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (80, "1m 20s"),
        (3599.9, "1h 00m"),
        (7380, "2h 03m"),
        (86400 * 3 + 3600 * 4, "3d 04h"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"), [(None, "-"), (0.0, "0 %"), (0.29, "29 %"), (0.9999, "99 %"), (1.0, "100 %")]
)
def test_percent_never_rounds_up_to_all(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "- tok/s"), (0.517, "0.52 tok/s"), (51.72, "51.7 tok/s"), (1234.5, "1,234 tok/s")],
)
def test_rate(value: float | None, text: str) -> None:
    assert rate(value, "tok") == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(512, "512 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")],
)
def test_size(n_bytes: int, text: str) -> None:
    assert size(n_bytes) == text


def test_times_and_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    assert moment(None) == "-"
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    assert moment(1_790_000_000.5) == "2026-09-21 19:43:20+05:30"
    assert count(1234567) == "1,234,567"
    assert short_id("0123456789abcdef" * 2) == "0123456789ab"
