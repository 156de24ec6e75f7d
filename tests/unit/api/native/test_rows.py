from __future__ import annotations

import json
from typing import Any

import pytest

from batchgen.api.native.schemas.rows import ErrorGroupList, Row, RowList
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support.api import Api
from tests.support.homes import answer_some, finish
from tests.unit.api.native.conftest import problem


def page(api: Api, **query: Any) -> RowList:
    answer = api.ours.get("/api/v1/jobs/nightly/rows", params=query)
    assert answer.status_code == 200, answer.text
    return RowList.model_validate(answer.json())


def test_a_walk_sees_each_row_once_while_rows_are_added(
    api: Api, service: Service, running: JobRecord
) -> None:
    found = [page(api, limit=20)]
    answer_some(service, running, shards=2)
    found.append(page(api, limit=20, after=found[-1].next_after))
    finish(service, running)
    while found[-1].has_more:
        found.append(page(api, limit=20, after=found[-1].next_after))
    assert [row.row for one in found for row in one.data] == list(range(80))
    assert found[-1].next_after is None


def test_rows_by_filter(api: Api, ended: JobRecord) -> None:
    def numbers(**query: Any) -> list[int]:
        return [row.row for row in page(api, **query).data]

    assert numbers(status="error") == [3, 7, 40]
    assert numbers(error_code="context_length_exceeded", contains="row-4") == [40]
    assert numbers(custom_id="row-12") == [12]
    assert numbers(finish_reason="length") == []
    assert numbers(status="ok", after=77) == [78, 79]


def test_one_row(api: Api, ended: JobRecord) -> None:
    path = "/api/v1/jobs/nightly/rows"
    row = Row.model_validate(api.ours.get(f"{path}/3").json())
    assert row.error is not None
    assert (row.row, row.custom_id, row.error.code) == (3, "row-3", "context_length_exceeded")
    assert problem(api.ours.get(f"{path}/80")) == (404, "row_not_found")
    assert problem(api.ours.get(f"{path}/-1")) == (400, "invalid_parameter")


def test_failed_rows_in_groups(api: Api, running: JobRecord) -> None:
    groups = ErrorGroupList.model_validate(api.ours.get("/api/v1/jobs/nightly/errors").json())
    (group,) = groups.data
    assert (group.count, group.pattern, groups.others) == (2, "row N is too long", 0)
    assert [row.row for row in group.rows] == [3, 7]


@pytest.mark.parametrize(
    "query",
    [
        {"status": "fine"},
        {"limit": "1001"},
        {"after": "-2"},
        {"after": str(1 << 63)},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_filter_that_is_not_known_is_refused(
    api: Api, running: JobRecord, query: dict[str, str]
) -> None:
    answer = api.ours.get("/api/v1/jobs/nightly/rows", params=query)
    assert problem(answer) == (400, "invalid_parameter")
    assert answer.json()["param"] == next(iter(query))


def test_a_page_is_json_with_the_lines_of_the_stream(api: Api, ended: JobRecord) -> None:
    answer = api.ours.get("/api/v1/jobs/nightly/rows", params={"limit": 1000})
    lines = api.ours.get("/api/v1/jobs/nightly/results").text.splitlines()
    assert answer.json()["data"] == [json.loads(line) for line in lines]
