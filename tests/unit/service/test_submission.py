from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import time_machine

from batchgen.errors import BadLines, Corrupt, InvalidParameter, NotAllowed, UnknownModel
from batchgen.inputs.ingest import ingest
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service, submission
from batchgen.service.submission import Submission, check_timing
from batchgen.storage.storage import Storage
from tests.support.homes import prompts

NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC


@pytest.fixture
def frozen() -> Iterator[None]:
    """A clock that stands still."""
    with time_machine.travel(datetime.fromtimestamp(NOW, UTC), tick=False):
        yield


@pytest.mark.usefixtures("frozen")
def test_times_are_read() -> None:
    timing = check_timing(
        Submission(model="tiny", not_before="+2h", deadline="+1d", window="22:00-6:00 UTC")
    )
    assert (timing.not_before, timing.deadline) == (NOW + 7200, NOW + 86400)
    assert timing.window == "22:00-06:00 UTC"


def test_no_times_are_no_times() -> None:
    timing = check_timing(Submission(model="tiny"))
    assert (timing.not_before, timing.deadline, timing.window) == (0.0, None, None)


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(
    "times", [{"deadline": "2001-01-01"}, {"deadline": "+1h", "not_before": "+2h"}]
)
def test_a_deadline_that_cannot_be_met_is_refused(times: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match="deadline"):
        check_timing(Submission(model="tiny", **times))  # type: ignore[arg-type]


@pytest.mark.usefixtures("frozen")
def test_with_a_key_a_past_deadline_is_left_to_the_store() -> None:
    late = Submission(model="tiny", deadline="2001-01-01", idempotency_key="k")
    assert check_timing(late).deadline is not None


def test_a_retry_after_the_deadline_finds_its_job(submit: Callable[..., JobRecord]) -> None:
    first = submit(deadline="+1h", idempotency_key="k")
    assert submit(deadline="2001-01-01", idempotency_key="k") == first


def test_the_rows_are_read_only_when_everything_else_is_right(service: Service) -> None:
    class Untouched(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise AssertionError("read too early")

        readinto = readinto1 = read1 = readline = read  # type: ignore[assignment]

    for wrong in (
        {"model": "none"},
        {"params": {"temperature": 9}},
        {"params": {"max_tokens": 256}},  # the model's whole context
        {"window": "never"},
        {"deadline": "soon"},
    ):
        with pytest.raises((UnknownModel, InvalidParameter)):
            service.submit(Untouched(), Submission(**{"model": "tiny", **wrong}))  # type: ignore[arg-type]


def test_bad_lines_leave_nothing(service: Service) -> None:
    with pytest.raises(BadLines):
        service.submit(io.BytesIO(b"{oops\n"), Submission(model="tiny"))
    assert service.records() == []
    assert list((service.settings.home / "inputs").glob("*")) == []


def test_an_answer_that_cannot_fit_the_model_is_a_bad_line(service: Service) -> None:
    with pytest.raises(BadLines, match="maximum context length is 256 tokens"):
        service.submit(
            io.BytesIO(b'{"prompt": "x", "max_tokens": 256}\n'), Submission(model="tiny")
        )


def test_one_content_is_stored_once(service: Service, submit: Callable[..., JobRecord]) -> None:
    first, second = submit(5), submit(5)
    assert first.input_sha256 == second.input_sha256
    assert len(list((service.settings.home / "inputs").iterdir())) == 2  # rows and index


def test_a_key_with_other_content_is_refused(submit: Callable[..., JobRecord]) -> None:
    submit(4, idempotency_key="k")
    with pytest.raises(NotAllowed):
        submit(5, idempotency_key="k")


@pytest.fixture
def racing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The input vanishes between its storage and the job, as an `rm` may have it once."""
    removals = iter([True])

    def removed(source: object, *, storage: Storage, **options: object) -> object:
        stored = ingest(source, storage=storage, **options)  # type: ignore[arg-type]
        if next(removals, False):
            storage.delete(f"inputs/{stored.sha256}")
        return stored

    monkeypatch.setattr(submission, "ingest", removed)


@pytest.mark.usefixtures("racing")
def test_an_input_removed_meanwhile_is_stored_again(
    service: Service, submit: Callable[..., JobRecord]
) -> None:
    job = submit(4)
    assert service.storage.size(f"inputs/{job.input_sha256}") == len(prompts(4))


@pytest.mark.usefixtures("racing")
def test_a_pipe_that_cannot_be_read_again_fails_the_job(service: Service) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation("seek")

    with pytest.raises(Corrupt, match="Submit again"):
        service.submit(Pipe(prompts(4)), Submission(model="tiny"))
    assert [job.state for job in service.records()] == ["failed"]
