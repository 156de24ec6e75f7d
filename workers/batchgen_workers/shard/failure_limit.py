"""The number of attempts at work that fails for a reason which a retry may not fix."""

from __future__ import annotations

from batchgen.errors import Unavailable
from batchgen.storage.storage import is_disk_trouble

#: A job fails after its shard, or its dataset, has failed this often. Failures by a full disk or an
#: unavailable database are not counted.
MAX_FAILURES = 5


def may_pass(error: BaseException) -> bool:
    """Return whether a failure is of the disk or of a service; such a failure is always retried."""
    return isinstance(error, Unavailable) or is_disk_trouble(error)
