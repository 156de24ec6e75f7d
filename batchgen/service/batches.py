"""The batches of one tenant, as OpenAI's Batch API has them: create, find, list, cancel."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import orjson

from batchgen.batches.batch_records import BatchRecord, NewBatch
from batchgen.batches.batches import BatchManager
from batchgen.batches.files import FileManager
from batchgen.batches.options import BatchOptions
from batchgen.calendar.times import parse_duration
from batchgen.core.endpoints import endpoint_fault
from batchgen.errors import Corrupt, FileNotFound, InvalidParameter
from batchgen.failpoints import reach
from batchgen.inputs.stored_input import first_line
from batchgen.jobs.creation.job_creation import check_new
from batchgen.jobs.records.job_records import NewJob
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.models.registry import Registry
from batchgen.requests.expected import EXPECTS
from batchgen.requests.lines import check_defaults
from batchgen.service.files import check_expiry
from batchgen.service.submission import Submission, Timing, check_timing
from batchgen.storage.storage import Storage

#: OpenAI's limits of `metadata`: pairs, characters of a name, characters of a value.
METADATA = (16, 64, 512)
PAGE = 100  # batches in one answer, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """A batch as a caller asks for it."""

    input_file_id: str
    endpoint: str
    # such as 24h
    completion_window: str
    metadata: dict[str, str] | None = None
    options: BatchOptions = field(default_factory=BatchOptions)
    # seconds after their creation at which the result files are deleted
    output_seconds: float | None = None
    idempotency_key: str | None = None
    # The client says that it has sent this before.
    is_retry: bool = False


class Batches:
    """Operates on the batches of one tenant. An id of another tenant's batch is not found."""

    def __init__(
        self,
        store: Store,
        storage: Storage,
        *,
        models: Registry,
        find_model: Callable[[str], ModelRecord],
        tenant: str,
        key_id: str | None = None,
    ) -> None:
        """Prepare to operate; `find_model` is `Service.model`."""
        self._rows = BatchManager(store.database)
        self._files = FileManager(store.database)
        self._storage = storage
        self._models = models
        self._find_model = find_model
        self._tenant = tenant
        self._key_id = key_id

    def create(self, request: BatchRequest) -> BatchRecord:
        """Create a batch, which is durable on return; a coordinator checks its lines later.

        Raises InvalidParameter, FileNotFound, UnknownModel, and NotAllowed if the idempotency key
        belongs to a batch that was created with other values.
        """
        model = self._model_of(request)
        new = _checked(request, model)
        batch = self._rows.create(new, tenant=self._tenant, key_id=self._key_id)
        reach("batch.created")
        return batch

    def get(self, batch_id: str) -> BatchRecord:
        """Return a batch; raise BatchNotFound."""
        return self._rows.get(batch_id, tenant=self._tenant)

    def list(self, *, after: str | None = None, limit: int = 20) -> list[BatchRecord]:
        """Return batches, newest first; `after` is the id of the last one seen."""
        return self._rows.list(tenant=self._tenant, after=after, limit=limit)

    def cancel(self, batch_id: str) -> BatchRecord:
        """Cancel a batch and return it; what is finished is kept.

        Raises BatchNotFound, and NotAllowed if there is nothing to cancel any more.
        """
        return self._rows.cancel(batch_id, tenant=self._tenant)

    def _model_of(self, request: BatchRequest) -> ModelRecord:
        try:
            file = self._files.get(request.input_file_id, tenant=self._tenant)
        except FileNotFound as error:
            raise FileNotFound(error.message, param="input_file_id") from None
        if file.input_sha256 is None:
            raise FileNotFound("Results of a batch are no requests.", param="input_file_id")
        if request.options.model is not None:
            return self._find_model(request.options.model)
        named = _model_named(self._first_line(file.id, file.input_sha256))
        if named is not None:
            return self._find_model(named)
        known = self._models.list()
        if len(known) != 1:
            raise InvalidParameter(
                "The first line names no model. Name it in 'body', or as 'model' of 'batchgen'.",
                param="model",
            )
        return known[0]

    def _first_line(self, file_id: str, sha256: str) -> bytes:
        try:
            return first_line(self._storage, sha256)
        except Corrupt:
            try:
                self._files.get(file_id, tenant=self._tenant)  # unless it was deleted meanwhile
            except FileNotFound as error:
                raise FileNotFound(error.message, param="input_file_id") from None
            raise


def _model_named(line: bytes) -> str | None:
    """Return the model that a line names, None if it names none or is bad in any way."""
    try:
        model = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))["body"]["model"]
    except (ValueError, TypeError, LookupError):
        return None
    return model if isinstance(model, str) else None


def _checked(request: BatchRequest, model: ModelRecord) -> NewBatch:
    if fault := endpoint_fault(request.endpoint):
        raise InvalidParameter(f"'endpoint' {fault}", param="endpoint")
    _check_storable(request)
    seconds = parse_duration(request.completion_window, param="completion_window")
    _check_metadata(request.metadata)
    check_expiry(request.output_seconds, param="output_expires_after")
    timing = _check_options(request.options, model, request.idempotency_key)
    end = time.time() + seconds if timing.deadline is None else timing.deadline
    if end <= timing.not_before:
        raise InvalidParameter(
            "The batch ends before it may start. Move one of them.", param="batchgen.not_before"
        )
    return NewBatch(
        input_file_id=request.input_file_id,
        endpoint=request.endpoint,
        completion_window=request.completion_window,
        window_seconds=seconds,
        metadata=request.metadata,
        options=request.options,
        model=model.name,
        deadline=timing.deadline,
        not_before=timing.not_before,
        output_seconds=request.output_seconds,
        idem_key=request.idempotency_key,
        is_retry=request.is_retry,
    )


def _check_options(options: BatchOptions, model: ModelRecord, idem_key: str | None) -> Timing:
    _ = options.policy
    if EXPECTS in options.params:
        raise InvalidParameter(f"There is no parameter {EXPECTS!r}.", param=EXPECTS)
    check_defaults(options.params, model.max_length, model.dialect)
    timing = check_timing(
        Submission(
            model=model.name,
            not_before=options.not_before,
            deadline=options.deadline,
            window=options.window,
        )
    )
    check_new(
        NewJob(
            input_sha256="",
            input_bytes=0,
            n_rows=0,
            model=model.name,
            model_sha256=model.sha256,
            name=options.name,
            priority=options.priority,
            idem_key=idem_key,
        )
    )
    return timing


def _check_storable(request: BatchRequest) -> None:
    """Raise InvalidParameter for text or numbers that JSON Lines and databases cannot hold."""
    held = {"metadata": request.metadata, "batchgen": asdict(request.options)}
    for param, value in held.items():
        try:
            is_kept = orjson.loads(orjson.dumps(value)) == value
        except TypeError:
            is_kept = False
        if not is_kept:
            raise InvalidParameter(
                f"'{param}' holds half of a surrogate pair, a number of more than 64 bits, or one "
                "that is not finite.",
                param=param,
            )


def _check_metadata(metadata: dict[str, str] | None) -> None:
    pairs, name_limit, value_limit = METADATA
    if metadata is None:
        return
    if len(metadata) > pairs:
        raise InvalidParameter(f"'metadata' may have {pairs} pairs at most.", param="metadata")
    for name, value in metadata.items():
        if len(name) > name_limit or len(value) > value_limit:
            raise InvalidParameter(
                f"A name in 'metadata' has {name_limit} characters at most, a value {value_limit}.",
                param="metadata",
            )
