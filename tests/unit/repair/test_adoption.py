"""A job is answered, then the database forgets some of it, as an older backup would."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.core.rows import ResultRow
from batchgen.core.states import JobState, ShardState
from batchgen.dataset.parts import part_key, read_footer, read_results, write_part
from batchgen.errors import Fenced
from batchgen.jobs.records.job_records import JobRecord, Lease, PartRecord
from batchgen.jobs.store import Store
from batchgen.repair.adoption import Adopter, Finding, Outcome
from batchgen.repair.invariants import check_invariants
from batchgen.service import Service
from batchgen.service.submission import Submission
from batchgen.settings import Settings
from tests.support.homes import answer_some, finish, pin_model, prompts
from tests.support.jobs import claim_first, forget_part, let_expire, set_job, shard
from tests.support.permissions import writable
from tests.support.result_rows import error_row, ok_row

ROWS = 40  # two shards of them


@pytest.fixture
def service(store: Store, tmp_path: Path) -> Service:
    """A home on each of the two databases."""
    pin_model(tmp_path)
    service = Service(Settings(home=tmp_path))
    vars(service)["store"] = store
    return service


@pytest.fixture
def job(service: Service) -> JobRecord:
    """A job of two shards, both answered."""
    job = service.submit(io.BytesIO(prompts(ROWS)), Submission(model="tiny"))
    answer_some(service, job, shards=2)
    return service.job(job.public_id)


def registered(service: Service, job: JobRecord) -> list[PartRecord]:
    segments = service.store.finalization.segments(job.id)
    return [segment.part for segment in segments if segment.part is not None]


def forget(service: Service, part: PartRecord, *, epoch: int = 0) -> None:
    """Take a commit and the claims before it back."""
    forget_part(service.store, part.shard_id, epoch=epoch)


def adopt(service: Service) -> list[Finding]:
    return list(service.adopt())


def outcomes(findings: Sequence[Finding]) -> list[Outcome]:
    return [finding.outcome for finding in findings]


def sound(service: Service) -> bool:
    return check_invariants(service.store, service.storage) == []


def rewrite(
    service: Service, part: PartRecord, rows: list[ResultRow] | None = None, **footer: Any
) -> str:
    """Write a part again, changed, and remove the first."""
    former = read_footer(service.storage, part.path)
    kept = list(read_results(service.storage, part.path)) if rows is None else rows
    key = part_key(former.job, part.shard_id, former.epoch)
    write_part(service.storage, key, kept, replace(former, **footer))
    service.storage.delete(part.path)
    return key


def test_a_forgotten_part_counts_again(service: Service, job: JobRecord) -> None:
    forgotten, _ = registered(service, job)
    forget(service, forgotten)
    (finding,) = adopt(service)
    assert (finding.outcome, finding.key) == (Outcome.ADOPTED, forgotten.path)
    adopted = registered(service, job)[0]
    assert adopted.epoch > forgotten.epoch
    assert (
        replace(
            adopted, path=forgotten.path, epoch=forgotten.epoch, committed_at=forgotten.committed_at
        )
        == forgotten
    )
    assert sound(service)
    assert finish(service, job).state is JobState.COMPLETED
    assert sound(service)


def test_all_that_was_forgotten_counts_again(service: Service, job: JobRecord) -> None:
    for part in registered(service, job):
        forget(service, part)
    assert outcomes(adopt(service)) == [Outcome.ADOPTED] * 2
    assert service.store.finalization.finalizable() == [job.id]


def test_whoever_wrote_it_is_fenced_and_cannot_take_it_back(
    service: Service, job: JobRecord
) -> None:
    """A worker asleep between rename and COMMIT removes its file when it learns of its fate."""
    forgotten, _ = registered(service, job)
    forget(service, forgotten)
    lease = claim_first(service.store, job)
    sleeping = rewrite(service, forgotten, epoch=lease.epoch)
    let_expire(service.store, lease)
    assert outcomes(adopt(service)) == [Outcome.ADOPTED]
    with pytest.raises(Fenced):
        service.store.leases.renew(lease, rows_done=0, ttl=60.0)
    service.storage.delete(sleeping)
    assert sound(service)


def test_the_latest_of_several_is_taken(service: Service, job: JobRecord) -> None:
    part, _ = registered(service, job)
    early, late = (replace(read_footer(service.storage, part.path), epoch=n) for n in (2, 11))
    keys = []
    for footer in (early, late):
        keys.append(part_key(footer.job, part.shard_id, footer.epoch))
        rows = list(read_results(service.storage, part.path))
        write_part(service.storage, keys[-1], rows, footer)
    forget(service, part)
    findings = {finding.key: finding for finding in adopt(service)}
    assert findings[keys[1]].outcome is Outcome.ADOPTED
    assert findings[keys[0]].outcome is findings[part.path].outcome is Outcome.LEFT
    assert shard(service.store, part.shard_id).epoch == 12
    assert sound(service)


def test_a_second_time_there_is_nothing_to_do(service: Service, job: JobRecord) -> None:
    forget(service, registered(service, job)[0])
    adopt(service)
    (finding,) = adopt(service)
    assert (finding.outcome, finding.detail) == (Outcome.LEFT, "its shard is committed")


def test_positions_decide_and_not_numbers(service: Service, job: JobRecord) -> None:
    """Shards made by a split that SQL forgot, and then made again, have other numbers."""
    part, _ = registered(service, job)
    footer = read_footer(service.storage, part.path)
    key = part_key(footer.job, part.shard_id + 1000, 7)
    rows = list(read_results(service.storage, part.path))
    write_part(service.storage, key, rows, replace(footer, shard=part.shard_id + 1000, epoch=7))
    service.storage.delete(part.path)
    forget(service, part)
    assert outcomes(adopt(service)) == [Outcome.ADOPTED]
    assert sound(service)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"job": "e" * 32}, "another"),
        ({"input_sha256": "e" * 64}, "another"),
        ({"model_sha256": "e" * 64}, "another"),
        ({"pos_end": ROWS + 1}, "other rows"),
        ({"rows": [ok_row(row) for row in range(31)]}, "not complete"),
        ({"rows": [ok_row(row) for row in range(1, 33)]}, "not complete"),
        (
            {"rows": [error_row(0, "batch_cancelled"), *(ok_row(row) for row in range(1, 32))]},
            "stopped",
        ),
    ],
)
def test_a_part_that_does_not_fit_is_left(
    service: Service, job: JobRecord, changed: dict[str, Any], reason: str
) -> None:
    part, _ = registered(service, job)
    key = rewrite(service, part, **changed)
    forget(service, part, epoch=1)
    (finding,) = adopt(service)
    assert (finding.outcome, finding.key) == (Outcome.LEFT, key)
    assert reason in finding.detail
    assert shard(service.store, part.shard_id).state is ShardState.READY
    assert sound(service)


def test_a_part_that_cannot_be_read_is_left(service: Service, job: JobRecord) -> None:
    first, second = registered(service, job)
    path = service.storage.path(first.path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    writable(path).write_bytes(data)
    writable(service.storage.path(second.path)).write_bytes(b"PAR1")
    for part in (first, second):
        forget(service, part, epoch=1)
    assert outcomes(adopt(service)) == [Outcome.LEFT] * 2
    assert sound(service)


def test_checkpoints_and_unfinished_files_are_no_parts(service: Service, job: JobRecord) -> None:
    first, second = registered(service, job)
    folder = service.storage.path(first.path).parent
    name = first.path.rpartition("/")[2]
    (folder / name).rename(folder / f"ckpt-{name}")
    other = second.path.rpartition("/")[2]
    (folder / other).rename(folder / f".{other}.00112233.tmp")
    for part in (first, second):
        forget(service, part, epoch=1)
    assert adopt(service) == []


def test_what_is_being_computed_is_left(service: Service, job: JobRecord) -> None:
    part, _ = registered(service, job)
    forget(service, part, epoch=1)
    lease = claim_first(service.store, job)
    (finding,) = adopt(service)
    assert (finding.outcome, finding.detail) == (Outcome.LEFT, "its shard is being computed")
    let_expire(service.store, lease)
    assert outcomes(adopt(service)) == [Outcome.ADOPTED]
    assert sound(service)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.FINALIZING, JobState.FAILED])
def test_a_job_that_takes_no_parts_gets_none(
    service: Service, job: JobRecord, state: JobState
) -> None:
    part, _ = registered(service, job)
    forget(service, part, epoch=1)
    set_job(service.store, job.id, state=state)
    (finding,) = adopt(service)
    assert (finding.outcome, finding.detail) == (Outcome.LEFT, f"its job is {state}")


def test_a_part_of_a_stopped_job_holds_rows_that_were_not_asked(
    service: Service, job: JobRecord
) -> None:
    part, _ = registered(service, job)
    rewrite(service, part, [error_row(row, "batch_cancelled") for row in range(32)])
    forget(service, part, epoch=1)
    lease = claim_first(service.store, job)
    service.store.jobs.cancel(job.id)
    let_expire(service.store, lease)
    assert outcomes(adopt(service)) == [Outcome.ADOPTED]
    assert sound(service)


def test_a_job_that_the_database_does_not_know_is_told(service: Service, job: JobRecord) -> None:
    path = service.storage.path(f"parts/{'e' * 32}/1.e1.ab.parquet")
    path.parent.mkdir()
    path.touch()
    (finding,) = adopt(service)
    assert (finding.outcome, finding.key) == (Outcome.LEFT, f"parts/{'e' * 32}")
    assert path.exists()


def test_an_epoch_that_fell_is_found_and_raised(service: Service, job: JobRecord) -> None:
    part, _ = registered(service, job)
    forget(service, part)
    service.storage.delete(part.path)
    left = service.storage.path(f"parts/{job.public_id}/ckpt-{part.shard_id}.e9.ab.parquet")
    left.touch()
    assert [violation.invariant for violation in service.fsck()] == ["I9"]
    assert "fsck --adopt" in service.fsck()[0].remedy
    assert outcomes(adopt(service)) == [Outcome.RAISED]
    assert sound(service)
    assert claim_first(service.store, job).epoch == 10


def test_an_epoch_in_use_is_not_raised(service: Service, job: JobRecord) -> None:
    part, _ = registered(service, job)
    forget(service, part)
    lease = claim_first(service.store, job)
    name = f"parts/{job.public_id}/ckpt-{part.shard_id}.e9.ab.parquet"
    service.storage.path(name).touch()
    findings = {finding.key: finding.outcome for finding in adopt(service)}
    assert findings[name] is Outcome.LEFT
    service.store.leases.renew(lease, rows_done=1, ttl=60.0)


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_lost_part_of_a_running_job_is_computed_again(
    service: Service, job: JobRecord, harm: str
) -> None:
    part, _ = registered(service, job)
    path = service.storage.path(part.path)
    if harm == "missing":
        path.unlink()
    else:
        writable(path).write_bytes(path.read_bytes()[:-1] + b"x")
    assert [violation.invariant for violation in service.fsck()] == ["I6"]
    findings = {finding.outcome: finding for finding in adopt(service)}
    assert findings[Outcome.REOPENED].key == part.path
    assert sound(service)
    assert claim_first(service.store, job).epoch > part.epoch


def test_a_lost_part_with_a_copy_is_adopted(service: Service, job: JobRecord) -> None:
    part, _ = registered(service, job)
    service.storage.path(part.path).rename(
        service.storage.path(part_key(job.public_id, part.shard_id, part.epoch))
    )
    assert outcomes(adopt(service)) == [Outcome.REOPENED, Outcome.ADOPTED]
    assert sound(service)


def test_an_ended_job_is_never_touched(service: Service, job: JobRecord) -> None:
    finish(service, job)
    service.storage.delete(registered(service, job)[0].path)
    before = service.job(job.public_id), registered(service, job)
    assert adopt(service) == []
    assert (service.job(job.public_id), registered(service, job)) == before


def test_a_shard_taken_between_reading_and_writing_is_left(
    service: Service, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, _ = registered(service, job)
    forget(service, part, epoch=1)
    taken: list[Lease] = []
    match = Adopter._match

    def and_be_late(*args: Any) -> Any:
        found = match(*args)
        taken.append(claim_first(service.store, job))
        return found

    monkeypatch.setattr(Adopter, "_match", and_be_late)
    (finding,) = adopt(service)
    assert (finding.outcome, finding.detail) == (Outcome.LEFT, "its shard was taken meanwhile")
    service.store.leases.renew(taken[0], rows_done=1, ttl=60.0)
    assert len(list(service.storage.path(f"parts/{job.public_id}").iterdir())) == 2
