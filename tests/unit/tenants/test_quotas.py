"""Quotas hold when jobs are submitted at once, and what has ended is counted no more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import insert, update

from batchgen.core.row_lengths import RowLengths
from batchgen.database.batch_tables import batches, files
from batchgen.database.tables import inputs
from batchgen.errors import InvalidParameter, QuotaExceeded, TenantNotFound
from batchgen.jobs.store import Store
from batchgen.tenants.quotas import Quotas, QuotaUse, check_batch, check_file
from batchgen.tenants.tenants import TenantManager
from tests.support.jobs import new_job

TENANT = "acme"


@pytest.fixture
def tenants(store: Store) -> TenantManager:
    tenants = TenantManager(store.database)
    tenants.add(TENANT)
    return tenants


def submit(store: Store, n_rows: int = 10, tenant: str = TENANT, **fields: Any) -> int:
    lengths = RowLengths(prompt_tokens=3.0, answer_tokens=7.0)
    new = new_job(n_rows, tenant_id=tenant, lengths=lengths, **fields)
    return store.jobs.submit(new).id


def add_batch(store: Store, number: int, **values: Any) -> None:
    with store.database.begin() as connection:
        check_batch(connection, TENANT)
        connection.execute(
            insert(batches).values(
                id=f"{number:032x}",
                tenant_id=TENANT,
                idem_key=str(number),
                endpoint="/v1/completions",
                completion_window="24h",
                options="{}",
                model="tiny",
                input_file_id="",
                output_file_id="",
                error_file_id="",
                created_at=1.0,
                expires_at=2.0,
                **values,
            )
        )


def add_file(store: Store, number: int, size: int) -> None:
    with store.database.begin() as connection:
        check_file(connection, TENANT, bytes=size)
        stored = {"state": "ready", "bytes": size, "n_rows": 1, "format": "jsonl"}
        connection.execute(insert(inputs).values(sha256=str(number), created_at=1.0, **stored))
        connection.execute(
            insert(files).values(
                id=f"{number:032x}",
                tenant_id=TENANT,
                filename="prompts.jsonl",
                purpose="batch",
                bytes=size,
                input_sha256=str(number),
                created_at=1.0,
            )
        )


def test_a_tenant_has_no_limits_until_they_are_set(store: Store, tenants: TenantManager) -> None:
    submit(store, 1_000_000)
    assert tenants.get(TENANT).quotas == Quotas()
    assert tenants.use(TENANT) == QuotaUse(jobs=1, tokens=10_000_000, bytes=0)
    assert tenants.use("local") == QuotaUse(jobs=0, tokens=0, bytes=0)


def test_quotas_are_set_and_taken_away(tenants: TenantManager) -> None:
    quotas = Quotas(max_jobs=1, max_rows=1 << 40, max_tokens=1 << 50, max_bytes=0)
    assert tenants.set_quotas(TENANT, quotas).quotas == quotas
    assert tenants.set_quotas(TENANT, Quotas()).quotas == Quotas()
    with pytest.raises(TenantNotFound):
        tenants.set_quotas("nobody", quotas)
    for bad in (Quotas(max_jobs=1 << 31), Quotas(max_rows=-1), Quotas(max_bytes=1 << 63)):
        with pytest.raises(InvalidParameter):
            tenants.set_quotas(TENANT, bad)


def test_rows_of_one_job(store: Store, tenants: TenantManager) -> None:
    tenants.set_quotas(TENANT, Quotas(max_rows=10))
    submit(store, 10)
    with pytest.raises(
        QuotaExceeded, match=r"max_rows \(rows in one job\) is 10; this would make 11"
    ):
        submit(store, 11)
    submit(store, 11, tenant="local")


def test_jobs_that_have_not_ended(store: Store, tenants: TenantManager) -> None:
    tenants.set_quotas(TENANT, Quotas(max_jobs=2))
    first = submit(store)
    submit(store)
    with pytest.raises(QuotaExceeded) as refused:
        submit(store)
    assert (refused.value.quota, refused.value.limit) == ("max_jobs", 2)
    submit(store, tenant="local")
    store.jobs.fail(first, "its input is gone")
    submit(store)


def test_expected_tokens_come_back_when_a_job_ends(store: Store, tenants: TenantManager) -> None:
    tenants.set_quotas(TENANT, Quotas(max_tokens=150))
    first = submit(store, 10)  # 100 tokens
    with pytest.raises(QuotaExceeded, match=r"is 150; this would make 160"):
        submit(store, 6)
    submit(store, 5)
    store.jobs.fail(first, "its input is gone")
    submit(store, 10)
    assert tenants.use(TENANT).tokens == 150


def test_a_repeated_submit_is_not_a_second_job(store: Store, tenants: TenantManager) -> None:
    tenants.set_quotas(TENANT, Quotas(max_jobs=1))
    new = new_job(10, tenant_id=TENANT, idem_key="once")
    assert store.jobs.submit(new) == store.jobs.submit(new)


def test_a_refused_job_leaves_nothing(store: Store, tenants: TenantManager) -> None:
    tenants.set_quotas(TENANT, Quotas(max_jobs=0))
    new = new_job(10, tenant_id=TENANT, idem_key="once")
    with pytest.raises(QuotaExceeded):
        store.jobs.submit(new)
    tenants.set_quotas(TENANT, Quotas())
    assert store.jobs.list(tenant=TENANT) == []
    assert store.jobs.submit(new).state == "queued"


@pytest.mark.parametrize("quotas", [Quotas(max_jobs=3), Quotas(max_tokens=300)], ids=repr)
def test_submits_at_once_do_not_pass_together(
    store: Store, tenants: TenantManager, quotas: Quotas
) -> None:
    tenants.set_quotas(TENANT, quotas)

    def attempt(_: int) -> bool:
        try:
            submit(store)
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(attempt, range(12)))
    assert accepted.count(True) == 3 == len(store.jobs.list(tenant=TENANT))


def test_batches_count_until_their_job_does(store: Store, tenants: TenantManager) -> None:
    tenants.set_quotas(TENANT, Quotas(max_jobs=2))
    add_batch(store, 1)
    add_batch(store, 2)
    with pytest.raises(QuotaExceeded):
        add_batch(store, 3)
    with pytest.raises(QuotaExceeded):
        submit(store)  # the batches are sure of their places
    job = submit(store, public_id=f"{1:032x}")  # the job of the first batch
    with store.database.begin() as connection:
        connection.execute(update(batches).where(batches.c.idem_key == "1").values(job_id=job))
    assert tenants.use(TENANT).jobs == 2
    with pytest.raises(QuotaExceeded):
        add_batch(store, 3)
    with store.database.begin() as connection:
        connection.execute(update(batches).where(batches.c.idem_key == "2").values(failed_at=2.0))
    add_batch(store, 3)


def test_bytes_of_files_that_are_kept(store: Store, tenants: TenantManager) -> None:
    tenants.set_quotas(TENANT, Quotas(max_bytes=100))
    add_file(store, 1, 60)
    with pytest.raises(QuotaExceeded, match=r"\(bytes of files\) is 100; this would make 101"):
        add_file(store, 2, 41)
    add_file(store, 2, 40)
    assert tenants.use(TENANT).bytes == 100
