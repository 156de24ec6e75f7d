"""Events of batches for webhooks, and quotas on batches."""

from __future__ import annotations

import json

import pytest

from batchgen.errors import QuotaExceeded
from batchgen.service import Service
from batchgen.tenants.quotas import Quotas
from batchgen.webhooks.deliveries import DeliveryManager
from batchgen.webhooks.webhooks import WebhookManager
from tests.support.batches import checked, create, job_of, requests, upload
from tests.support.homes import finish


def test_every_end_of_a_batch_is_announced_once(service: Service) -> None:
    database = service.store.database
    webhook = WebhookManager(database).add("ours", url="https://example.com/hook")
    refused = checked(service, create(service, b"{}\n"))
    cancelled = create(service)
    for _ in range(2):
        service.batches.cancel(cancelled.id)
    completed = checked(service, create(service))
    finish(service, job_of(service, completed))
    sent = DeliveryManager(database).newest(webhook.id)
    told = [json.loads(delivery.payload) for delivery in reversed(sent)]
    assert [(each["type"], each["data"]["id"]) for each in told] == [
        ("batch.failed", f"batch_{refused.id}"),
        ("batch.cancelled", f"batch_{cancelled.id}"),
        ("batch.completed", f"batch_{completed.id}"),
    ]


def test_a_quota_of_jobs_counts_batches_that_have_none_yet(service: Service) -> None:
    service.access.tenants.add("ours")
    service.access.tenants.set_quotas("ours", Quotas(max_jobs=1))
    batch = create(service)
    with pytest.raises(QuotaExceeded, match="max_jobs"):
        create(service)
    finish(service, job_of(service, checked(service, batch)))
    create(service)


def test_a_quota_of_bytes_counts_the_files_that_are_kept(service: Service) -> None:
    service.access.tenants.add("ours")
    service.access.tenants.set_quotas("ours", Quotas(max_bytes=len(requests()) + 10))
    file = upload(service)
    with pytest.raises(QuotaExceeded, match="max_bytes"):
        upload(service)
    service.files.delete(file.id)
    upload(service)
