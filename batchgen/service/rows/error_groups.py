"""Failed rows in groups: those that failed for one reason stand together, however many they are.

context_length_exceeded  "The prompt has 9000 tokens, more than 4096."  row 7    ┐ one group:
context_length_exceeded  "The prompt has 5123 tokens, more than 4096."  row 40   ┘ … N tokens …
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batchgen.jobs.records.job_records import JobRecord
from batchgen.service.rows.finished_rows import FinishedRows

COLUMNS: Final = ("row", "custom_id", "error")
FIRST: Final = 3  # rows that a group names
MOST_GROUPS: Final = 100  # rows of further groups are only counted


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRow:
    """One row of a group."""

    row: int
    custom_id: str


@dataclass(slots=True, kw_only=True)
class ErrorGroup:
    """Rows that failed with the same code, and with messages that differ in numbers only."""

    code: str
    # with N in the place of each number
    pattern: str
    # of its first row
    message: str
    param: str | None
    count: int = 0
    rows: list[FailedRow] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """The name of the group, the same for every job."""
        return hashlib.sha256(f"{self.code}\n{self.pattern}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroups:
    """The groups of a job's failed rows, the largest first."""

    groups: list[ErrorGroup]
    # failed rows that are in none of them
    others: int


def read_groups(finished: FinishedRows, job: JobRecord) -> ErrorGroups:
    """Return the groups of the failed rows of a job, of those so far if it still runs."""
    groups: dict[tuple[str, str], ErrorGroup] = {}
    others = 0
    for batch in finished.batches(job, configs=("errors",), columns=COLUMNS):
        others += _add(groups, batch)
    largest = sorted(groups.values(), key=lambda group: (-group.count, group.rows[0].row))
    return ErrorGroups(groups=largest, others=others)


def _add(groups: dict[tuple[str, str], ErrorGroup], batch: pa.RecordBatch) -> int:
    """Add the rows of a batch; return how many fit into no group."""
    error = batch["error"]
    table = pa.table(
        {
            "place": pa.array(range(len(batch)), pa.int64()),
            "code": pc.struct_field(error, "code"),
            "pattern": pc.replace_substring_regex(pc.struct_field(error, "message"), r"\d+", "N"),
        }
    )
    # in the order of their first rows
    found = table.group_by(["code", "pattern"], use_threads=False).aggregate([("place", "list")])
    others = 0
    for one in found.to_pylist():
        key, places = (one["code"], one["pattern"]), one["place_list"]
        if key not in groups:
            if len(groups) == MOST_GROUPS:
                others += len(places)
                continue
            groups[key] = _begin(*key, error[places[0]].as_py())
        group = groups[key]
        group.count += len(places)
        group.rows += _named(batch, places[: FIRST - len(group.rows)])
    return others


def _begin(code: str, pattern: str, error: dict[str, str | None]) -> ErrorGroup:
    return ErrorGroup(
        code=code, pattern=pattern, message=error["message"] or "", param=error["param"]
    )


def _named(batch: pa.RecordBatch, places: list[int]) -> list[FailedRow]:
    return [
        FailedRow(row=batch["row"][place].as_py(), custom_id=batch["custom_id"][place].as_py())
        for place in places
    ]
