"""The requests of the native API, as values: a connection, blocking or not, sends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

import orjson

from batchgen.calendar.times import rfc3339
from batchgen.client.models import Model, models_of_json
from batchgen.errors import InvalidParameter, JobNotFound
from batchgen.inputs.survey import OnInvalid
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.service.job_json import worker_of_json
from batchgen.service.submission import Submission, check_timing

ROOT: Final = "/api/v1"
MOST_PARAMS: Final = 24_000  # bytes of parameters in an address
STORING: Final = 600.0  # seconds in which a server stores what it has received
PAGE: Final = 100  # jobs asked for at a time

Answer = TypeVar("Answer")
Params = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Answer]):
    """One request, and how its answer is read."""

    method: str
    # below ROOT
    path: str
    decode: Callable[[Any], Answer]
    params: Params = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    # seconds of silence until an attempt has failed; None means those of the connection
    timeout: float | None = None


def job_path(ref: str, *below: str) -> str:
    """Return the path of a job, or of something below it; any name is one segment of it."""
    return "/".join(["/jobs", quote(ref, safe=""), *below])


def is_segment(name: str) -> bool:
    """Return whether a server can find a name in a path: it reads %2F as a slash."""
    return "/" not in name and name not in ("", ".", "..")


def no_such_job(name: str) -> JobNotFound:
    """Return the error of a name that no job has."""
    return JobNotFound(f"No job has the id or the name {name!r}. See `batchgen ls`.")


def get(path: str, params: Params | None = None) -> Call[Any]:
    """Return a request of the JSON at `path`."""
    return Call(method="GET", path=path, decode=_as_it_is, params=params or {})


def act(ref: str, action: str) -> Call[Any]:
    """Return the request that pauses, resumes or cancels a job."""
    return Call(method="POST", path=job_path(ref, action), decode=_as_it_is)


def delete(ref: str) -> Call[Any]:
    """Return the request that removes a job."""
    return Call(method="DELETE", path=job_path(ref), decode=_as_it_is)


def workers() -> Call[tuple[WorkerRecord, ...]]:
    """Return the request of the workers that are alive."""
    return Call(
        method="GET",
        path="/workers",
        decode=lambda value: tuple(map(worker_of_json, value["data"])),
    )


def models() -> Call[list[Model]]:
    """Return the request of all models, by name."""
    return Call(method="GET", path="/models", decode=lambda value: models_of_json(value["data"]))


def create(submission: Submission) -> Call[Any]:
    """Return the request that submits a job; its body is the prompt file.

    Times are read by this machine's clock and zone. Without an idempotency key it gets one, so that
    it can be sent again. Raises InvalidParameter.
    """
    timing = check_timing(submission)
    given = {
        "model": submission.model,
        "name": submission.name,
        "params": _params_text(submission.params) if submission.params else None,
        "on_invalid": str(OnInvalid(submission.on_invalid)),
        "priority": submission.priority,
        "not_before": rfc3339(timing.not_before or None),
        "window": timing.window,
        "deadline": rfc3339(timing.deadline),
    }
    return Call(
        method="POST",
        path="/jobs",
        decode=_as_it_is,
        params={name: value for name, value in given.items() if value is not None},
        headers={"idempotency-key": submission.idempotency_key or uuid4().hex},
        timeout=STORING,
    )


def _params_text(params: Mapping[str, Any]) -> str:
    """Return parameters as JSON; raise InvalidParameter if they do not fit into an address."""
    text = orjson.dumps(dict(params)).decode()
    if len(quote(text, safe="")) > MOST_PARAMS:
        raise InvalidParameter(
            "The parameters are too long to be sent for all rows at once. Write the longest of "
            "them, such as a schema, into the lines.",
            param="params",
        )
    return text


class JobPages:
    """The pages of a list of jobs: `next_call` asks for one, `take` reads it."""

    def __init__(self, *, state: str | None, name: str | None, limit: int | None) -> None:
        self._filter = {"state": state, "name": name}
        self._left = limit
        self._after: str | None = None
        self.more = limit is None or limit > 0

    def next_call(self) -> Call[Any]:
        """Return the request of the next page."""
        size = PAGE if self._left is None else min(PAGE, self._left)
        given = {**self._filter, "after": self._after, "limit": size}
        return get("/jobs", {key: value for key, value in given.items() if value is not None})

    def take(self, page: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the jobs of a page."""
        jobs = page["data"]
        if self._left is not None:
            self._left -= len(jobs)
        self._after = jobs[-1]["id"] if jobs else None
        self.more = bool(page["has_more"]) and bool(jobs) and (self._left is None or self._left > 0)
        yield from jobs


def _as_it_is(value: Any) -> Any:
    return value
