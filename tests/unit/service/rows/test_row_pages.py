from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.service.rows import row_pages
from batchgen.service.rows.row_filter import RowFilter
from tests.support.homes import answer_some, finish

Submit = Callable[..., JobRecord]
ANY = RowFilter()


def walk(
    service: Service, job: JobRecord, wanted: RowFilter = ANY, *, limit: int = 7
) -> list[list[int]]:
    """Return the row numbers of every page."""
    pages, after = [], -1
    while True:
        page = service.results.page(job.public_id, wanted, after=after, limit=limit)
        pages.append([json.loads(line)["row"] for line in page.lines])
        if page.next_after is None:
            return pages
        after = page.next_after


def rows(pages: list[list[int]]) -> list[int]:
    return [row for page in pages for row in page]


@pytest.fixture(params=["running", "ended"])
def job(request: pytest.FixtureRequest, service: Service, submit: Submit) -> JobRecord:
    """A job of 80 rows of which 64 at least are finished; some failed, some were cut."""
    job = submit(80)
    outcome: dict[str, Any] = {"failing": [3, 40, 41], "cut": [5, 63]}
    answer_some(service, job, shards=2, **outcome)
    return job if request.param == "running" else finish(service, job, **outcome)


def test_pages_hold_every_finished_row_once(service: Service, job: JobRecord) -> None:
    expected = list(range(80 if service.job(job.public_id).state.ended else 64))
    pages = walk(service, job)
    assert rows(pages) == expected
    assert {len(page) for page in pages[:-1]} == {7}
    assert rows(walk(service, job, limit=1000)) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RowFilter(status="error"), [3, 40, 41]),
        (RowFilter(error_code="context_length_exceeded"), [3, 40, 41]),
        (RowFilter(error_code="poison"), []),
        (RowFilter(finish_reason="length"), [5, 63]),
        (RowFilter(finish_reason="length", status="error"), []),
        (RowFilter(status="ok", error_code="context_length_exceeded"), []),
        (RowFilter(custom_id="row-4"), [4]),
        (RowFilter(custom_id="row"), []),
        (RowFilter(contains="w-1"), [1, *range(10, 20)]),
        (RowFilter(contains="w-4", status="error"), [40, 41]),
        (RowFilter(contains="%"), []),
    ],
    ids=str,
)
def test_filters(service: Service, job: JobRecord, wanted: RowFilter, expected: list[int]) -> None:
    assert rows(walk(service, job, wanted, limit=2)) == expected
    assert rows(walk(service, job, wanted, limit=100)) == expected


def test_rows_that_are_finished_meanwhile_are_seen_once(service: Service, submit: Submit) -> None:
    job = submit(80)
    answer_some(service, job, shards=1)
    first = service.results.page(job.public_id, ANY, limit=30)
    assert first.next_after == 29
    answer_some(service, job, shards=2)
    second = service.results.page(job.public_id, ANY, after=29, limit=30)
    assert second.next_after == 59
    finish(service, job)
    third = service.results.page(job.public_id, ANY, after=59, limit=30)
    lines = first.lines + second.lines + third.lines
    assert [json.loads(line)["row"] for line in lines] == list(range(80))
    assert third.next_after is None


def test_a_page_looks_at_a_bounded_number_of_rows(
    service: Service, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_pages, "MOST_EXAMINED", 20)
    pages = walk(service, job, RowFilter(custom_id="row-63"))
    assert rows(pages) == [63]
    assert pages[0] == []


def test_one_row(service: Service, job: JobRecord) -> None:
    line = service.results.line(job.public_id, 40)
    assert line is not None
    assert json.loads(line)["error"]["code"] == "context_length_exceeded"
    assert service.results.line(job.public_id, 80) is None
    assert service.results.line(job.public_id, -1) is None
