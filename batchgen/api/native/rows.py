"""Rows of a job: pages of those that fit a filter, single ones, and groups of failed ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from batchgen.api.auth import TenantService
from batchgen.api.errors import ApiError
from batchgen.api.native.replies import json_reply, reply
from batchgen.api.native.schemas.rows import ErrorGroupList, Row, RowList
from batchgen.service.rows.row_filter import RowFilter, Status

MOST_ROWS = 1000  # of one page
LARGEST_ROW = 1 << 62

router = APIRouter(prefix="/jobs/{ref}", tags=["rows"])


class RowQuery(BaseModel):
    """The rows that a page holds; every field that is given must fit."""

    model_config = ConfigDict(extra="forbid")

    status: Status | None = None
    error_code: str | None = None
    # of the first choice: stop or length
    finish_reason: str | None = None
    custom_id: str | None = None
    # a part of the custom_id
    contains: str | None = None
    # only rows with a higher number
    after: int = Field(-1, ge=-1, le=LARGEST_ROW)
    limit: int = Field(100, ge=1, le=MOST_ROWS)


@router.get("/rows", response_model=RowList)
def list_rows(service: TenantService, ref: str, query: Annotated[RowQuery, Query()]) -> Response:
    """Return finished rows in input order, also while the job runs.

    The next page is asked for with `after=next_after`; `has_more` says whether there is one. A page
    may be short or empty and still have a next one, because a page looks at a bounded number of
    rows.
    """
    fields = query.model_dump(exclude={"after", "limit"})
    found = service.results.page(ref, RowFilter(**fields), after=query.after, limit=query.limit)
    rest = orjson.dumps({"has_more": found.next_after is not None, "next_after": found.next_after})
    return json_reply(b'{"data":[' + b",".join(found.lines) + b"]," + rest[1:])


@router.get("/rows/{row}", response_model=Row)
def retrieve_row(
    service: TenantService, ref: str, row: Annotated[int, Path(ge=0, le=LARGEST_ROW)]
) -> Response:
    """Return a finished row by its number, which counts from 0. 404 while it is not finished."""
    line = service.results.line(ref, row)
    if line is None:
        raise ApiError(404, f"Row {row} has no result, or is not there.", code="row_not_found")
    return json_reply(line)


@router.get("/errors", response_model=ErrorGroupList)
def list_errors(service: TenantService, ref: str) -> Response:
    """Return the failed rows in groups, the largest first, also while the job runs."""
    found = service.results.error_groups(ref)
    groups = [{"fingerprint": group.fingerprint, **asdict(group)} for group in found.groups]
    return reply({"data": groups, "others": found.others})
