"""Check, index and store an input file in one pass.

source ──► RecordReader ──► LineParser ──► problems, ids
              │  │
              │  └─► inputs/<sha256>.index
              └────► inputs/<sha256>
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from batchgen.core.dialects import Dialect
from batchgen.core.row_lengths import RowLengths
from batchgen.errors import LineProblem
from batchgen.inputs.record_file import OFFSET, RecordFile, RecordReader
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.inputs.survey import OnInvalid, Survey
from batchgen.requests.lines import LineParser
from batchgen.requests.other_models import OtherModels
from batchgen.requests.values.strict_json import MAX_LINE_BYTES
from batchgen.storage.scratch import scratch_file
from batchgen.storage.storage import Storage

__all__ = ["OnInvalid", "StoredInput", "ValidationReport", "ingest", "validate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """The result of `validate`: `n_bad` lines cannot be used; `problems` has the first, by line."""

    n_rows: int
    n_bad: int
    problems: list[LineProblem]
    # The last row is too long, and the rest of the input was not read.
    ended_early: bool = False
    other_models: OtherModels = field(default_factory=OtherModels)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInput:
    """A stored input. `n_bad` of its rows will be error rows."""

    sha256: str
    bytes: int
    n_rows: int
    n_bad: int
    lengths: RowLengths
    other_models: OtherModels = field(default_factory=OtherModels)


def validate(
    source: BinaryIO,
    *,
    defaults: Mapping[str, Any],
    model: str | None = None,
    context: int | None = None,
    dialect: Dialect | None = None,
) -> ValidationReport:
    """Check every line and id of an input, and store nothing.

    `source` is read to its end, or to the end of a line that is too long. `model`, `context` and
    `dialect` are those of LineParser. Raises EmptyInput, MissingInput, InvalidInput if it has
    another format, and InvalidParameter for `defaults`.
    """
    parser = LineParser(defaults, model, context, dialect=dialect)
    with ExitStack() as stack:
        index, spill = (stack.enter_context(scratch_file()) for _ in range(2))
        if source.seekable():
            again, copy, base = source, None, source.tell()
        else:  # a pipe cannot be read again: suspected ids are read from a copy
            again = stack.enter_context(scratch_file())
            copy, base = again.write, 0
        survey = Survey(parser, spill)
        survey.read(RecordReader(source, index=index, copy=copy, longest=MAX_LINE_BYTES))
        survey.compare_ids(RecordFile(again, index, base=base))
        return ValidationReport(
            n_rows=survey.n_rows,
            n_bad=survey.n_unusable,
            problems=survey.problems,
            ended_early=survey.ended_early,
            other_models=survey.other_models,
        )


def ingest(
    source: BinaryIO,
    *,
    storage: Storage,
    defaults: Mapping[str, Any],
    model: str,
    on_invalid: OnInvalid,
    context: int | None = None,
    dialect: Dialect | None = None,
) -> StoredInput:
    """Store an input under its SHA-256, with an index of its rows, if its lines can be used.

    If this fails, nothing is stored. If the same bytes are stored already, they are written again,
    which also repairs a damaged copy. Ids must be unique even if bad lines are accepted.
    Raises BadLines, EmptyInput, MissingInput, InvalidInput and InvalidParameter.
    """
    parser = LineParser(defaults, model, context, dialect=dialect)
    digest = hashlib.sha256()
    with (
        storage.write(input_key("incoming")) as data,
        storage.write(index_key("incoming")) as index,
        scratch_file() as spill,
    ):

        def copy(chunk: bytes) -> None:
            digest.update(chunk)
            data.file.write(chunk)

        survey = Survey(parser, spill)
        reader = RecordReader(source, index=index.file, copy=copy, longest=on_invalid.longest)
        survey.read(reader)
        index.file.truncate((survey.n_rows + 1) * OFFSET.itemsize)  # drops last blank lines
        data.file.flush()
        index.file.flush()
        with data.path.open("rb") as written, index.path.open("rb") as offsets:
            survey.compare_ids(RecordFile(written, offsets))
        survey.refuse(on_invalid)
        sha256 = digest.hexdigest()
        # The name is the hash of all bytes, so it is known only now.
        data.target = storage.path(input_key(sha256))
        index.target = storage.path(index_key(sha256))
    return StoredInput(
        sha256=sha256,
        bytes=reader.bytes,
        n_rows=survey.n_rows,
        n_bad=survey.n_bad,
        lengths=survey.lengths,
        other_models=survey.other_models,
    )
