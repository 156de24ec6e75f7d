"""Filters of rows: by status, error code, finish reason and custom_id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from batchgen.dataset.streams.record_batches import Config
from batchgen.service.rows.finished_rows import BOTH

Status = Literal["ok", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """The rows that are wanted; every field that is set must fit."""

    status: Status | None = None
    error_code: str | None = None
    # of the first choice
    finish_reason: str | None = None
    custom_id: str | None = None
    # a part of the custom_id
    contains: str | None = None

    @property
    def configs(self) -> Sequence[Config]:
        """The series of the dataset that may hold such rows."""
        failed = self.status == "error" or self.error_code is not None
        answered = self.status == "ok" or self.finish_reason is not None
        if failed and answered:
            return ()
        return ("errors",) if failed else ("default",) if answered else BOTH

    @property
    def columns(self) -> list[str]:
        """The columns that `mask` looks at, and `row`."""
        needed = {
            "custom_id": self.custom_id is not None or self.contains is not None,
            "finish_reason": self.finish_reason is not None,
            "error": self.error_code is not None,
        }
        return ["row", *(name for name, is_needed in needed.items() if is_needed)]

    def matches(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of a batch that fit; the batch is of `configs` and has `columns`."""
        conditions = self._conditions()
        return batch if conditions is None else batch.filter(conditions)

    def _conditions(self) -> pc.Expression | None:
        conditions = []
        if self.custom_id is not None:
            conditions.append(pc.field("custom_id") == self.custom_id)
        if self.contains is not None:
            conditions.append(pc.match_substring(pc.field("custom_id"), self.contains))
        if self.finish_reason is not None:
            conditions.append(pc.field("finish_reason") == self.finish_reason)
        if self.error_code is not None:
            conditions.append(pc.field("error", "code") == self.error_code)
        return reduce(and_, conditions) if conditions else None
