"""Result rows, parts and datasets for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchgen.core.numerics import Numerics
from batchgen.core.rows import Choice, ResultRow, RowError, Usage
from batchgen.dataset.dataset import (
    DatasetInfo,
    DatasetMeta,
    Limits,
    PartRef,
    Segment,
    write_dataset,
)
from batchgen.dataset.parts import GROUP_BYTES, PartFooter, part_key, write_part
from batchgen.storage.storage import LocalStorage

JOB = "0123456789abcdef" * 2
ROOT = f"datasets/{JOB}/e1"
CREATED_AT = 1_790_000_000_123_456  # microseconds since the epoch

META = DatasetMeta(
    job_id=JOB,
    name="night run",
    model="tiny",
    model_sha256="a" * 64,
    engine_version="0.1.0",
    params={"temperature": 0.0, "max_tokens": 16},
    input_sha256="b" * 64,
    n_rows=0,
    created_at=1_790_000_000.5,
)


def ok_row(row: int, text: str | None = None, **changes: Any) -> ResultRow:
    """Return an answered row."""
    choice = Choice(index=0, text=text or f"answer {row}", finish_reason="stop", score=-1.5)
    fields: dict[str, Any] = {
        "row": row,
        "custom_id": f"row-{row}",
        "model": "tiny",
        "choices": [choice],
        "usage": Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1),
        "request_id": f"req{row}",
        "attempt": 1,
        "seed": row * 7,
        "created_at": CREATED_AT + row,
        "latency_ms": 12,
    }
    return ResultRow(**{**fields, **changes})


def error_row(row: int, code: str = "context_length_exceeded", **changes: Any) -> ResultRow:
    """Return a failed row."""
    error = RowError(code=code, message=f"row {row} is too long", param="messages")
    return ok_row(row, **{"choices": [], "usage": None, "error": error, **changes})


def mixed_rows(start: int, stop: int, *, every: int = 3) -> list[ResultRow]:
    """Return rows of which each `every`th failed."""
    return [error_row(row) if row % every == 0 else ok_row(row) for row in range(start, stop)]


def put_part(
    storage: LocalStorage,
    rows: Sequence[ResultRow],
    *,
    seq: int = 0,
    numerics: tuple[Numerics, ...] = (),
    group_bytes: int = GROUP_BYTES,
) -> PartRef:
    """Write a part and return it as SQL would name it."""
    positions = [row.row for row in rows]
    footer = PartFooter(
        job=JOB,
        shard=seq,
        epoch=1,
        pos_start=min(positions),
        pos_end=max(positions) + 1,
        input_sha256="b" * 64,
        model="tiny",
        model_sha256="a" * 64,
        numerics=numerics,
    )
    info = write_part(storage, part_key(JOB, seq, 1), rows, footer, group_bytes=group_bytes)
    return PartRef(path=info.path, n_rows=info.n_rows, sha256=info.sha256)


def put_dataset(
    home: Path,
    segments: Iterable[Segment],
    *,
    n_rows: int,
    root: str = ROOT,
    limits: Limits | None = None,
    **meta: Any,
) -> tuple[Path, DatasetInfo]:
    """Write a dataset below `home` and return its folder and what SQL would record."""
    storage = LocalStorage(home)
    info = write_dataset(
        storage,
        root=root,
        segments=segments,
        meta=replace(META, n_rows=n_rows, **meta),
        limits=limits,
    )
    return storage.path(root), info


def bytes_below(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder: path inside it → bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
