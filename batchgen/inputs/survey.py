"""Read an input once: count rows, find those that cannot be used and ids that repeat."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import BinaryIO, Final

import numpy as np

from batchgen.core.row_lengths import LengthSample, RowLengths
from batchgen.core.rows import BadRow, InputRow
from batchgen.errors import BadLines, EmptyInput, InvalidInput, LineProblem
from batchgen.inputs.duplicates import Duplicate, IdHashes
from batchgen.inputs.record_file import MAX_RECORD_BYTES, RecordFile, RecordReader
from batchgen.requests.lines import LineParser, implicit_id
from batchgen.requests.other_models import OtherModels
from batchgen.requests.plain_lines import PlainLines
from batchgen.requests.values.line_error import quoted
from batchgen.requests.values.strict_json import MAX_LINE_BYTES

MAX_PROBLEMS: Final = 1_000  # that are described; further ones are only counted
SAMPLED: Final = 16  # rows of each chunk of the input whose length is measured
_OWN_IDS = "Give every line an id of its own."


class OnInvalid(StrEnum):
    """The choice for an input with lines that cannot be used."""

    REFUSE = "refuse"  #: Create no job and report every bad line.
    ROW_ERROR = "row-error"  #: Create a job in which each bad line is an error row.

    @property
    def longest(self) -> int:
        """The bytes of a record after which the rest of the input is not read."""
        return MAX_LINE_BYTES if self is OnInvalid.REFUSE else MAX_RECORD_BYTES


class Survey:
    """Reads an input once, then compares ids that may be equal. `spill` holds hashes of ids."""

    def __init__(self, parser: LineParser, spill: BinaryIO) -> None:
        self._parser = parser
        self._plain = PlainLines(parser)
        self._ids = IdHashes(spill)
        self._sample = LengthSample()
        self._bad_rows = array("q")
        self._repeated_rows = array("q")
        self._bad: list[LineProblem] = []
        self._repeated: list[LineProblem] = []
        self.other_models = OtherModels()
        self.n_rows = 0
        #: True if reading stopped after a row that is too long.
        self.ended_early = False

    @property
    def n_bad(self) -> int:
        """The number of rows that do not parse."""
        return len(self._bad_rows)

    @property
    def n_unusable(self) -> int:
        """The number of rows that do not parse, repeat an id, or both."""
        return len(np.union1d(self._bad_rows, self._repeated_rows))

    @property
    def problems(self) -> list[LineProblem]:
        """The first problems, by line."""
        return sorted(self._bad + self._repeated, key=lambda each: each.line)[:MAX_PROBLEMS]

    def read(self, reader: RecordReader) -> None:
        """Parse all records except blank ones at the end; raise EmptyInput if there is none."""
        plain_id, add_id = self._plain.id_of, self._ids.add
        row = blanks = 0
        for batch in reader.batches():
            self._look_closely(batch[:: 1 + len(batch) // SAMPLED])
            for raw in batch:
                custom_id = plain_id(raw, row + blanks)
                if custom_id is None and not raw.strip():
                    blanks += 1  # counts as a row only if a record that is not blank follows
                    continue
                if blanks:
                    for blank in range(row, row + blanks):
                        add_id(self._parsed_id(b"", blank))
                    row += blanks
                    blanks = 0
                add_id(custom_id or self._parsed_id(raw, row))
                row += 1
        self.n_rows = row
        self.ended_early = reader.ended_early
        if not row:
            raise EmptyInput

    @property
    def lengths(self) -> RowLengths:
        """The lengths of the rows, estimated from a sample of every part of the input."""
        return self._sample.lengths

    def compare_ids(self, records: RecordFile) -> None:
        """Find the rows that repeat an id. Rows with equal hashes are read again from `records`."""

        def id_of(row: int) -> str:
            [(_, raw)] = records.read(row, row + 1)
            return self._parser.parse(raw, row).custom_id

        def counted() -> Iterator[Duplicate]:
            for duplicate in self._ids.duplicates(id_of):
                self._repeated_rows.append(duplicate.row)
                yield duplicate

        first = heapq.nsmallest(MAX_PROBLEMS, counted(), key=lambda each: each.row)
        self._repeated = [_describe(duplicate) for duplicate in first]

    def refuse(self, on_invalid: OnInvalid) -> None:
        """Raise BadLines if the input must not become a job.

        A repeated id is always refused, because ids tell the caller which answer is which.
        """
        if on_invalid is OnInvalid.ROW_ERROR:
            if self.ended_early:
                raise InvalidInput(
                    f"Line {self.n_rows} goes on for more than {MAX_RECORD_BYTES >> 20} MiB: "
                    "this is no file of lines. Check that it is the file you mean."
                )
            if self._repeated:
                raise BadLines(self._repeated, len(self._repeated_rows), remedy=_OWN_IDS)
        elif self._bad and self._repeated:
            remedy = f"Correct them. {_OWN_IDS}"
            raise BadLines(self.problems, self.n_unusable, remedy=remedy)
        elif self._repeated:
            raise BadLines(self.problems, self.n_unusable, remedy=_OWN_IDS)
        elif self._bad:
            raise BadLines(self.problems, self.n_unusable)

    def _look_closely(self, raws: Iterable[bytes]) -> None:
        for raw in raws:
            parsed = self._parser.parse(raw, 0)
            if isinstance(parsed, InputRow):
                self._sample.add(parsed)

    def _parsed_id(self, raw: bytes, row: int) -> str:
        parsed = self._parser.parse(raw, row)
        if isinstance(parsed, BadRow):
            self._note_bad(parsed)
        elif parsed.other_model is not None:
            self.other_models.add(parsed.other_model)
        return parsed.custom_id

    def _note_bad(self, bad: BadRow) -> None:
        self._bad_rows.append(bad.row)
        if len(self._bad) < MAX_PROBLEMS:
            error = bad.error
            self._bad.append(
                LineProblem(
                    line=bad.row + 1, code=error.code, message=error.message, param=error.param
                )
            )


def _describe(duplicate: Duplicate) -> LineProblem:
    custom_id = duplicate.custom_id
    message = f"The id {quoted(custom_id)} is already that of line {duplicate.first + 1}."
    if custom_id in (implicit_id(duplicate.row), implicit_id(duplicate.first)):
        message += " A line that gives none is called row-<n>, counted from 0."
    return LineProblem(
        line=duplicate.row + 1, code="duplicate_custom_id", message=message, param="custom_id"
    )
