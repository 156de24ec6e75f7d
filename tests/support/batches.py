"""Batches for tests: files of chat lines, and the steps that a coordinator and a worker do."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

from batchgen.batches.batch_records import BatchRecord
from batchgen.batches.checks import CheckManager
from batchgen.batches.file_records import FileRecord, NewFile
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from batchgen.service.batches import BatchRequest
from batchgen.storage.storage import LocalStorage
from batchgen_workers.service.batch_checker import BatchChecker
from tests.support.homes import MODEL

CHAT = "/v1/chat/completions"


def chat_line(number: int, **fields: Any) -> dict[str, Any]:
    """Return a line of a batch; `fields` of the body replace its own."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"Count to {number}"}]}
    return {"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": {**body, **fields}}


def jsonl(lines: Iterable[object]) -> bytes:
    """Return lines as a file."""
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def requests(n_rows: int = 4) -> bytes:
    """Return the file of a batch with so many rows."""
    return jsonl(chat_line(number) for number in range(n_rows))


def upload(service: Service, data: bytes | None = None, **fields: Any) -> FileRecord:
    """Upload a file."""
    uploaded = service.files.store(io.BytesIO(requests() if data is None else data))
    return service.files.register(uploaded, NewFile(**{"filename": "requests.jsonl", **fields}))


def request(file: FileRecord, **fields: Any) -> BatchRequest:
    """Return a request for a batch on a file."""
    values = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **fields}
    return BatchRequest(**values)


def create(service: Service, data: bytes | None = None, **fields: Any) -> BatchRecord:
    """Upload a file and create a batch on it."""
    return service.batches.create(request(upload(service, data), **fields))


def checker(service: Service) -> BatchChecker:
    """Return the checker of a coordinator."""
    return BatchChecker(
        rows=CheckManager(service.store.database),
        storage=LocalStorage(service.settings.home),
        models=service.models,
    )


def checked(service: Service, batch: BatchRecord) -> BatchRecord:
    """Check all new batches, and return one as it is then."""
    checker(service).run_once()
    return service.batches.get(batch.id)


def job_of(service: Service, batch: BatchRecord) -> JobRecord:
    """Return the job of a batch."""
    return service.store.jobs.get(batch.id, tenant=batch.tenant_id)
