"""Models, workers, files of a dataset, and usage."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from batchgen.api.native.schemas.shape import Shape


class Model(Shape):
    """A registered model."""

    name: str
    architecture: str
    dtype: str
    # tokens of prompt and answer together
    max_length: int
    # whether it answers rows with `messages`
    chat_template: bool
    # where it came from, without a path of the server
    source: str
    sha256: str
    created_at: datetime


class ModelList(Shape):
    """Models by name."""

    data: list[Model]


class Worker(Shape):
    """A worker whose heartbeat is fresh."""

    id: str
    model: str
    slots: int
    device: str
    pool_blocks: int
    version: str
    # statistics of its engine
    stats: dict[str, Any]
    started_at: datetime
    heartbeat_at: datetime


class WorkerList(Shape):
    """Workers, oldest first."""

    data: list[Worker]


class DatasetFile(Shape):
    """One file of a dataset."""

    path: str
    # null if it is not Parquet
    rows: int | None
    bytes: int
    sha256: str


class DatasetFileList(Shape):
    """The files of a dataset; the manifest, which is not among them, describes them."""

    data: list[DatasetFile]
    # path of the manifest, to be fetched like the files
    manifest: str
    manifest_sha256: str | None


class Verification(Shape):
    """The result of comparing a dataset with its manifest."""

    ok: bool
    # one sentence for each file that is missing, changed or extra
    problems: list[str]


class UsageRecord(Shape):
    """The usage of the ended jobs of one key and model."""

    # null for jobs that were submitted without a key
    key_id: str | None
    model: str
    jobs: int
    rows_ok: int
    rows_err: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class UsageList(Shape):
    """The usage of the tenant, by key and model."""

    data: list[UsageRecord]
