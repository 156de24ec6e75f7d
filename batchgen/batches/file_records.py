"""Records of files: uploaded ones, and the output and error files of batches."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from sqlalchemy import Row


class Purpose(StrEnum):
    """The use of a file, by OpenAI's names."""

    BATCH = "batch"  #: Uploaded; the lines are requests.
    OUTPUT = "batch_output"  #: Lines that are read from the results of a batch.


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """An upload as a caller names it."""

    filename: str
    # seconds after creation at which it is deleted; None keeps it
    expires_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file, as stored in SQL."""

    id: str
    tenant_id: str
    filename: str
    purpose: str
    # None: an output file whose lines have not been counted
    bytes: int | None
    # None: an output file
    input_sha256: str | None
    batch_id: str | None
    created_at: float
    expires_at: float | None
    # Of an output file: the endpoint of its batch, if it has the failed rows, and if it has all.
    endpoint: str | None
    is_errors: bool | None
    is_final: bool | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Build the record from a row of `files.SELECTED`."""
        return cls(**{field.name: row._mapping[field.name] for field in fields(cls)})
