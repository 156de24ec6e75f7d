"""Checks the lines of new batches, one batch after another: each becomes a job or is refused."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from batchgen.batches.batch_records import BatchError
from batchgen.batches.checks import CheckManager, Unchecked
from batchgen.batches.validation import Refused, validate_batch
from batchgen.errors import (
    BatchgenError,
    Corrupt,
    InvalidParameter,
    QuotaExceeded,
    Unavailable,
    UnknownModel,
)
from batchgen.failpoints import reach
from batchgen.models.registry import Registry
from batchgen.storage.storage import Storage
from batchgen.telemetry.counters import batches_checked
from batchgen_workers.cancellation import CancelToken
from batchgen_workers.exceptions import describe
from batchgen_workers.logs import get_logger
from batchgen_workers.shard.claim_gate import Draining
from batchgen_workers.shard.failure_limit import MAX_FAILURES

RENEWALS = 4  # of a claim, while it would last
PAUSE_AFTER_TROUBLE = 15.0  # seconds until a batch that could not be checked is tried again

log = get_logger(__name__)


class _Overtaken(Exception):
    """The batch was cancelled, or another check of it has ended."""


@dataclass(slots=True, kw_only=True)
class BatchChecker:
    """Checks batches. Many may run; a batch is checked by one of them as long as it goes on."""

    rows: CheckManager
    storage: Storage
    models: Registry
    # Once it is cancelled, a check in progress is left to another coordinator.
    token: CancelToken = field(default_factory=CancelToken)
    # {batch id: number of failures that speak neither against its lines nor against a service}
    _failures: Counter[str] = field(default_factory=Counter)

    def run_once(self) -> int:
        """Check every batch that is due, and return how many."""
        checked = 0
        while not self.token.is_cancelled and (unchecked := self.rows.claim()) is not None:
            self._check(unchecked)
            checked += 1
        return checked

    def _check(self, unchecked: Unchecked) -> None:
        batch = unchecked.batch
        context = batch.log_context()
        try:
            refused = self._try_check(unchecked)
        except _Overtaken:
            log.info("batch check ended early", **context)
        except Draining:
            self.rows.release(batch.id)
        except (Unavailable, OSError) as error:
            log.error("batch not checked", error=str(error), **context)
            self.rows.release(batch.id, delay=PAUSE_AFTER_TROUBLE)
        except Exception as error:
            # an error of one batch must not delay others
            log.exception("batch check failed", **context)
            self._count_failure(unchecked, describe(error))
        else:
            batches_checked.labels("refused" if refused else "accepted").inc()
            log.info("batch checked", accepted=not refused, **context)

    def _try_check(self, unchecked: Unchecked) -> tuple[BatchError, ...]:
        """Accept or refuse the batch; return the reasons, () if its job exists now."""
        batch_id = unchecked.batch.id
        try:
            model = self.models.get(unchecked.batch.model)
            new = validate_batch(
                unchecked, storage=self.storage, model=model, watch=_Watch(self, batch_id)
            )
            reach("batch.checked")
            self.rows.accept(batch_id, new)
            reach("batch.accepted")
            return ()
        except Unavailable:
            raise
        except BatchgenError as error:
            if isinstance(error, (Corrupt, UnknownModel)):
                self.storage.check()  # in another store every file is missing
            reasons = _reasons(error)
            self.rows.refuse(batch_id, reasons)
            return reasons

    def _count_failure(self, unchecked: Unchecked, reason: str) -> None:
        """Plan another check, or refuse the batch after MAX_FAILURES."""
        batch_id = unchecked.batch.id
        self._failures[batch_id] += 1
        if self._failures[batch_id] < MAX_FAILURES:
            self.rows.release(batch_id, delay=PAUSE_AFTER_TROUBLE)
            return
        message = f"The file could not be checked: {reason}"
        self.rows.refuse(batch_id, [BatchError(code="server_error", message=message)])
        batches_checked.labels("refused").inc()


class _Watch:
    """Renews a claim now and then, and ends the check that need not go on."""

    def __init__(self, checker: BatchChecker, batch_id: str) -> None:
        self._checker = checker
        self._batch_id = batch_id
        self._renew_at = 0.0

    def __call__(self) -> None:
        if self._checker.token.is_cancelled:
            raise Draining
        if time.monotonic() < self._renew_at:
            return
        if not self._checker.rows.renew(self._batch_id):
            raise _Overtaken
        self._renew_at = time.monotonic() + self._checker.rows.seconds / RENEWALS


def _reasons(error: BatchgenError) -> tuple[BatchError, ...]:
    if isinstance(error, Refused):
        return error.errors
    param = error.param if isinstance(error, InvalidParameter) else None
    return (BatchError(code=_code(error), message=error.message, param=param),)


def _code(error: BatchgenError) -> str:
    if isinstance(error, UnknownModel):
        return "model_not_found"
    if isinstance(error, InvalidParameter):
        return "invalid_parameter"
    if isinstance(error, QuotaExceeded):
        return "token_limit_exceeded" if error.quota == "max_tokens" else "quota_exceeded"
    return "server_error" if isinstance(error, Corrupt) else "not_allowed"
