"""The OpenAPI document is committed and true: drawn at random, no call gets an unnamed answer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from batchgen.api.app import create_app
from batchgen.api.openapi import document_of
from batchgen.service import Service
from batchgen.service.submission import Submission
from batchgen.settings import Settings
from docs import generate_openapi
from tests.support.api import HOOKS_HOST, OURS, Api, running_api
from tests.support.batches import create
from tests.support.homes import MODEL, finish, prompts

EXAMPLES = 12  # of each operation
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
schemathesis.serializer.alias("application/x-ndjson", "application/octet-stream")
SCHEMA = schemathesis.openapi.from_dict(document_of(create_app(Service(Settings()))))
ENDLESS = {"GET /api/v1/events"}
OPERATIONS = {
    found.label: found
    for found in (result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok))
    if found.label not in ENDLESS
}


@pytest.fixture
def home(tmp_path: Path, sqlite_url: str) -> Iterator[tuple[Api, dict[str, str]]]:
    """A home with a completed job, a batch and a webhook, and their ids."""
    with running_api(tmp_path, sqlite_url) as api:
        service = api.service.for_tenant(OURS)
        service.access.tenants.add(OURS)
        job = service.submit(io.BytesIO(prompts(4)), Submission(model=MODEL))
        finish(api.service, job)
        batch = create(service)
        yield (
            api,
            {
                "ref": job.public_id,
                "file_id": f"file-{batch.input_file_id}",
                "batch_id": f"batch_{batch.id}",
                "webhook_id": service.webhooks.add(f"https://{HOOKS_HOST}/").id,
            },
        )


def test_the_committed_document_is_that_of_the_code() -> None:
    assert generate_openapi.main(["--check"]) == 0, "python docs/generate_openapi.py writes it"


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does() -> None:
    operations = [
        operation
        for path in document_of(create_app(Service(Settings())))["paths"].values()
        for operation in path.values()
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["description"] for operation in operations)


@pytest.mark.parametrize("known", [False, True], ids=["anything", "something"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_answer_is_one_that_the_document_names(
    home: tuple[Api, dict[str, str]], operation: str, known: bool
) -> None:
    api, ids = home
    found = OPERATIONS[operation]
    headers = {"authorization": f"Bearer {api.key()}"}

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=found.as_strategy())
    def call(case: Any) -> None:
        if known:
            names = (case.path_parameters or {}).keys()
            case.path_parameters |= {name: ids[name] for name in names & ids.keys()}
        case.call_and_validate(headers=headers, checks=CHECKS, app=api.app)

    call()
