from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.batches.batch_records import BatchRecord, BatchStatus
from batchgen.batches.checks import CheckManager
from batchgen.errors import DatabaseUnavailable
from batchgen.inputs.stored_input import input_key
from batchgen.service import Service
from batchgen.settings import Settings
from batchgen.telemetry.catalogue import Process
from batchgen.tenants.quotas import Quotas
from batchgen_workers.service import batch_checker
from batchgen_workers.shard.failure_limit import MAX_FAILURES
from tests.support.batches import chat_line, checker, create, jsonl
from tests.support.homes import pin_model
from tests.support.metrics import Changes


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    home = tmp_path / "home"
    pin_model(home)
    service = Service(Settings(home=home, database_url=sqlite_url))
    yield service
    service.close()


def found(service: Service, batch: BatchRecord) -> tuple[BatchStatus, list[str]]:
    batch = service.batches.get(batch.id)
    return batch.status, [error.code for error in batch.errors]


def test_all_new_batches_are_checked(service: Service) -> None:
    good, bad = create(service), create(service, b"{}\n")
    changes = Changes(Process.COORDINATOR)
    assert checker(service).run_once() == 2
    assert changes() == {
        'batchgen_batches_checked_total{outcome="accepted"}': 1,
        'batchgen_batches_checked_total{outcome="refused"}': 1,
    }
    assert found(service, good) == (BatchStatus.IN_PROGRESS, [])
    assert found(service, bad) == (BatchStatus.FAILED, ["missing_required_parameter"])
    assert checker(service).run_once() == 0


def test_a_model_that_was_removed_meanwhile(service: Service) -> None:
    pin_model(service.settings.home, "other")
    batch = create(service, jsonl([chat_line(0, model="other")]))
    service.remove_model("other")
    checker(service).run_once()
    assert found(service, batch) == (BatchStatus.FAILED, ["model_not_found"])


def test_a_quota_that_is_used_up_refuses_the_batch_by_openais_code(service: Service) -> None:
    batch = create(service)
    service.access.tenants.set_quotas(service.tenant, Quotas(max_tokens=5))
    checker(service).run_once()
    assert found(service, batch) == (BatchStatus.FAILED, ["token_limit_exceeded"])


def test_an_input_that_was_lost(service: Service) -> None:
    batch = create(service)
    service.storage.delete(input_key(batch.input_sha256 or ""))
    service.storage.path(input_key("other")).write_text("the disk is there")
    checker(service).run_once()
    assert found(service, batch) == (BatchStatus.FAILED, ["server_error"])


@pytest.mark.parametrize("error", [DatabaseUnavailable(), OSError(28, "No space left")])
def test_trouble_of_a_service_is_tried_again_later(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    batch, checks = create(service), checker(service)
    _fail(monkeypatch, error)
    assert checks.run_once() == 1
    assert checks.run_once() == 0  # not before a while has passed
    monkeypatch.undo()
    checks.rows.release(batch.id)
    checks.run_once()
    assert found(service, batch) == (BatchStatus.IN_PROGRESS, [])


def test_a_check_that_fails_each_time_fails_its_batch_and_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, checks = create(service), checker(service)
    changes = Changes(Process.COORDINATOR)
    _fail(monkeypatch, ValueError("a prompt"))
    for _ in range(MAX_FAILURES):
        checks.rows.release(batch.id)
        assert checks.run_once() == 1
    assert found(service, batch) == (BatchStatus.FAILED, ["server_error"])
    assert changes() == {'batchgen_batches_checked_total{outcome="refused"}': 1}
    assert "a prompt" not in service.batches.get(batch.id).errors[0].message
    monkeypatch.undo()
    other = create(service)
    checks.run_once()
    assert found(service, other) == (BatchStatus.IN_PROGRESS, [])


def test_a_batch_that_is_cancelled_while_it_is_checked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = create(service)
    renew = CheckManager.renew

    def cancel_first(self: CheckManager, batch_id: str) -> bool:
        service.batches.cancel(batch_id)
        return renew(self, batch_id)

    monkeypatch.setattr(CheckManager, "renew", cancel_first)
    assert checker(service).run_once() == 1
    assert found(service, batch) == (BatchStatus.CANCELLED, [])
    assert service.records() == []


def test_a_coordinator_that_ends_leaves_the_check_to_another(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, ending = create(service), checker(service)
    claim: Callable[..., Any] = CheckManager.claim

    def then_end(self: CheckManager) -> Any:
        unchecked = claim(self)
        ending.token.cancel()
        return unchecked

    monkeypatch.setattr(CheckManager, "claim", then_end)
    assert ending.run_once() == 1
    monkeypatch.undo()
    assert found(service, batch) == (BatchStatus.VALIDATING, [])
    assert checker(service).run_once() == 1
    assert found(service, batch) == (BatchStatus.IN_PROGRESS, [])


def _fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(batch_checker, "validate_batch", fail)
