"""The JSON shapes of OpenAI's Batch API. The names and types are OpenAI's."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Purpose = Literal["batch", "batch_output"]
Status = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]


class File(BaseModel):
    """A file."""

    id: str
    object: Literal["file"]
    # 0 while the lines of results are not counted, because more will come
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Purpose
    status: Literal["uploaded", "processed"]
    status_details: str | None


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"]
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["file"]
    deleted: bool


class Model(BaseModel):
    """A model of the registry."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class ExpiresAfter(BaseModel):
    """The time after which files are deleted."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int


class Options(BaseModel):
    """Options that OpenAI does not have; `extra_body={"batchgen": {…}}` sends them."""

    model_config = ConfigDict(extra="forbid")

    # answers every line, whichever model it names
    model: str | None = None
    # decoding parameters of every line that does not set them
    params: dict[str, Any] = Field(default_factory=dict)
    name: str | None = None
    priority: int = Field(0, ge=-(1 << 31), le=(1 << 31) - 1)
    not_before: str | None = None
    window: str | None = None
    deadline: str | None = None
    on_invalid: Literal["refuse", "row_error", "row-error"] = "refuse"


class NewBatch(BaseModel):
    """The body of a create."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: str
    endpoint: str
    # a length of time, such as 24h, 90m or 7d
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None
    batchgen: Options | None = None


class BatchError(BaseModel):
    """One reason why a batch failed."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    """The reasons why a batch failed."""

    object: Literal["list"]
    data: list[BatchError]


class RequestCounts(BaseModel):
    """The numbers of lines; `completed` and `failed` count those that are final."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    """Tokens of prompts that were found in the prefix cache."""

    cached_tokens: int


class OutputTokensDetails(BaseModel):
    """Tokens of reasoning: none is counted apart."""

    reasoning_tokens: int


class Usage(BaseModel):
    """The tokens of the lines that are final."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Extension(Options):
    """The options of a batch, and its files, which can be read while it goes on."""

    output_file_id: str | None
    error_file_id: str | None


class Batch(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: Usage | None
    metadata: dict[str, str] | None
    batchgen: Extension


class BatchList(BaseModel):
    """A page of batches, newest first."""

    object: Literal["list"]
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool
