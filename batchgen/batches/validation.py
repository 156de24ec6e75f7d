"""Check the lines of a batch: they become a new job, or the reasons why they cannot.

input ──► Survey, with the parser of the batch ─┬─► NewJob
                                                └─► BatchErrors, with line numbers
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from batchgen.batches.batch_records import BatchError, BatchRecord
from batchgen.batches.checks import Unchecked
from batchgen.errors import BadLines, BatchgenError, Corrupt, InvalidInput, LineProblem
from batchgen.inputs.record_file import RecordFile, RecordReader
from batchgen.inputs.seals import sealed
from batchgen.inputs.stored_input import index_key, input_key
from batchgen.inputs.survey import Survey
from batchgen.jobs.creation.sharding import shard_limit
from batchgen.jobs.records.job_records import NewJob
from batchgen.models.record import ModelRecord
from batchgen.requests.expected import EXPECTS
from batchgen.requests.lines import LineParser
from batchgen.storage.scratch import scratch_file
from batchgen.storage.storage import Storage

LISTED: Final = 100  # problems that a batch lists
_ENVELOPE: Final = frozenset({"custom_id", "method", "url", "body"})

Watch = Callable[[], None]


class Refused(BatchgenError):
    """The lines of a batch cannot be used. Its errors say why."""

    def __init__(self, errors: Sequence[BatchError]) -> None:
        self.errors = tuple(errors)
        super().__init__()


def validate_batch(
    unchecked: Unchecked, *, storage: Storage, model: ModelRecord, watch: Watch
) -> NewJob:
    """Return the job of a batch whose lines can be used.

    `watch` is called again and again while the lines are read; what it raises ends the check.
    Raises Refused, and StoreMismatch if this home is not the one that has the input.
    """
    batch = unchecked.batch
    params = batch_params(batch)
    parser = LineParser(params, model.name, model.max_length, dialect=model.dialect)
    survey = Survey(parser, spill := scratch_file())
    try:
        with spill:
            _read(survey, batch, storage, watch)
    except BadLines as bad:
        raise Refused(_listed(bad)) from None
    except InvalidInput as error:
        raise Refused([BatchError(code="invalid_file", message=error.message)]) from None
    assert batch.input_sha256 is not None, "a batch without a job has its input"
    return NewJob(
        input_sha256=batch.input_sha256,
        input_bytes=unchecked.input_bytes,
        n_rows=survey.n_rows,
        lengths=survey.lengths,
        model=model.name,
        model_sha256=model.sha256,
        params=params,
        shard_rows=shard_limit(model),
        **_placed(batch),
    )


def batch_params(batch: BatchRecord) -> dict[str, Any]:
    """Return the parameters of a batch's job: its defaults, and what its lines must name."""
    expects: dict[str, Any] = {"url": batch.endpoint}
    if batch.options.model is None:
        expects["model"] = batch.model  # nobody asked that another model answers
    return {**batch.options.params, EXPECTS: expects}


def _placed(batch: BatchRecord) -> dict[str, Any]:
    options = batch.options
    return {
        "name": options.name,
        "priority": options.priority,
        "not_before": batch.not_before,
        "deadline": batch.expires_at,
        "window": options.window,
        "tenant_id": batch.tenant_id,
        "key_id": batch.key_id,
        "public_id": batch.id,
    }


def _read(survey: Survey, batch: BatchRecord, storage: Storage, watch: Watch) -> None:
    policy, sha256 = batch.options.policy, batch.input_sha256 or ""
    try:
        with storage.open(input_key(sha256)) as data, storage.open(index_key(sha256)) as index:
            sealed(data, sha256)
            data.seek(0)
            survey.read(RecordReader(data, copy=lambda _: watch(), longest=policy.longest))
            survey.compare_ids(RecordFile(data, index))
    except FileNotFoundError:
        raise Corrupt("The stored input of the batch is missing. Upload the file again.") from None
    survey.refuse(policy)


def _listed(bad: BadLines) -> list[BatchError]:
    listed = [_as_error(problem) for problem in bad.problems[:LISTED]]
    if hidden := bad.total - len({each.line for each in listed}):
        lines = "line has a problem" if hidden == 1 else "lines have problems"
        listed.append(BatchError(code="more_errors", message=f"{hidden:,} more {lines}."))
    return listed


def _as_error(problem: LineProblem) -> BatchError:
    param = problem.param
    if param is not None and param.partition(".")[0] not in _ENVELOPE:
        param = f"body.{param}"
    return BatchError(code=problem.code, message=problem.message, line=problem.line, param=param)
