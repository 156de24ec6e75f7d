"""Failures that a repetition may not mend: how often the same thing is tried in spite of that."""

from __future__ import annotations

from batchgen.errors import Unavailable
from batchgen.storage.storage import is_disk_trouble

#: Times that a shard, or a dataset, may fail for another reason than a full disk or an absent
#: database before its job does.
MAX_FAILURES = 5


def may_pass(error: BaseException) -> bool:
    """Tell whether a failure is of the surroundings: these are waited for, however long."""
    return isinstance(error, Unavailable) or is_disk_trouble(error)
