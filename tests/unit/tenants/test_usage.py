"""Usage counts each job once, in the transaction that ends it."""

from __future__ import annotations

import pytest

from batchgen.errors import DatabaseUnavailable
from batchgen.jobs.records.job_records import JobRecord
from batchgen.jobs.removals import RemovalManager
from batchgen.jobs.store import Store
from batchgen.tenants.usage import UsageManager, UsageRecord
from tests.support.jobs import MODEL, OWNER, TTL, claim_first, commit_all, part_of, running_job


def used(store: Store, tenant: str = "acme") -> UsageRecord | None:
    records = UsageManager(store.database).list(tenant=tenant)
    assert len(records) <= 1
    return records[0] if records else None


def begin(store: Store, n_rows: int = 10) -> JobRecord:
    return running_job(store, n_rows, tenant_id="acme", key_id="k" * 16)


def complete(store: Store, job: JobRecord) -> JobRecord:
    assert job.id in store.finalization.finalizable()
    final = store.finalization.claim(job.id, owner=OWNER, ttl=TTL)
    assert final is not None
    ended = {"dataset_path": f"datasets/{job.public_id}", "manifest_sha256": "a" * 64}
    record = store.finalization.complete(final, **ended)
    assert store.finalization.complete(final, **ended) == record
    return record


def sums(jobs: int, n_rows: int, n_err: int = 0) -> UsageRecord:
    """Return the usage of jobs with so many committed rows, as `part_of` makes them."""
    return UsageRecord(
        tenant_id="acme",
        key_id="k" * 16,
        model=MODEL,
        jobs=jobs,
        rows_ok=n_rows - n_err,
        rows_err=n_err,
        prompt_tokens=7 * n_rows,
        completion_tokens=3 * n_rows,
        cached_tokens=2 * n_rows,
    )


def test_a_job_counts_when_it_ends_and_once(store: Store) -> None:
    job = begin(store)
    commit_all(store, job)
    assert used(store) is None
    complete(store, job)
    assert used(store) == sums(1, 10)
    RemovalManager(store.database).begin(job.public_id)
    assert used(store) == sums(1, 10)


def test_jobs_add_up_by_tenant_key_and_model(store: Store) -> None:
    for job in (begin(store, 10), begin(store, 30)):
        commit_all(store, job)
        complete(store, job)
    mine = running_job(store, 5)
    commit_all(store, mine)
    complete(store, mine)
    assert used(store) == sums(2, 40)
    local = used(store, "local")
    assert local is not None
    assert (local.key_id, local.jobs, local.rows_ok) == (None, 1, 5)
    assert [record.tenant_id for record in UsageManager(store.database).list()] == ["acme", "local"]


def test_a_cancelled_job_counts_what_was_computed(store: Store) -> None:
    job = begin(store, 640)
    lease = claim_first(store, job)
    store.leases.commit(lease, part_of(lease, n_err=2))
    assert lease.n_rows < 640
    store.jobs.cancel(job.id)
    complete(store, job)
    assert used(store) == sums(1, lease.n_rows, n_err=2)


def test_a_failed_job_counts(store: Store) -> None:
    job = begin(store)
    commit_all(store, job)
    store.jobs.fail(job.id, "its input is gone")
    store.jobs.fail(job.id, "its input is gone")
    assert used(store) == sums(1, 10)


def test_a_job_removed_before_its_dataset_is_written_counts(store: Store) -> None:
    job = begin(store, 640)
    lease = claim_first(store, job)
    store.leases.commit(lease, part_of(lease))
    store.jobs.cancel(job.id)
    removals = RemovalManager(store.database)
    removals.begin(job.public_id)
    removals.begin(job.public_id)
    assert used(store) == sums(1, lease.n_rows)


def test_an_end_that_rolls_back_does_not_count(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = begin(store)
    commit_all(store, job)

    def fail(*_: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr("batchgen.jobs.transitions.stop_ready_shards", fail)
    monkeypatch.setattr("batchgen.database.transactions.pause", lambda _: None)
    with pytest.raises(DatabaseUnavailable):
        store.jobs.fail(job.id, "its input is gone")
    assert used(store) is None
