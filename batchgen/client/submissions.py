"""The arguments of a call become the request of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchgen.library.asked import on_invalid_of, parameters_of
from batchgen.service.submission import Submission


def submission_of(
    parameters: Mapping[str, Any], columns: Sequence[str], *, on_invalid: str, **asked: Any
) -> Submission:
    """Return the request of a job; raise InvalidParameter for what JSON cannot hold."""
    return Submission(
        params=parameters_of(parameters, columns), on_invalid=on_invalid_of(on_invalid), **asked
    )
