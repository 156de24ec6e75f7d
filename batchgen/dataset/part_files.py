"""List the part files in storage and read their names.

parts/<job>/7.e2.<uuid>.parquet     parts/<job>/ckpt-7.e2.<uuid>.parquet     parts/<job>/.….tmp
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from batchgen.storage.durable_files import exists
from batchgen.storage.storage import Storage

JOB_ID: Final = re.compile(r"[0-9a-f]{32}")

_NAME: Final = re.compile(r"(ckpt-)?(\d{1,18})\.e(\d{1,18})\.\w+\.parquet")
_UNFINISHED: Final = re.compile(r"\.(.+)\.[0-9a-f]+\.tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartName:
    """The shard and lease that a file name in a job's folder of parts refers to."""

    shard: int  # sequence number, unique in the database
    epoch: int  # of the lease under which it was written
    is_checkpoint: bool
    is_unfinished: bool  # True for the temporary file of a write that did not end

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Parse a file's name; return None if it is not the name of a part."""
        unfinished = _UNFINISHED.fullmatch(name)
        found = _NAME.fullmatch(unfinished[1] if unfinished else name)
        if found is None:
            return None
        return cls(
            shard=int(found[2]),
            epoch=int(found[3]),
            is_checkpoint=found[1] is not None,
            is_unfinished=unfinished is not None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """One file in a job's folder of parts."""

    key: str  # of the storage
    name: PartName


def list_part_files(storage: Storage) -> dict[str, list[PartFile]]:
    """Return the files that are named like a part, by the public id of their job."""
    top = storage.path("parts")
    if not exists(top):
        return {}
    return {
        folder.name: [
            PartFile(key=f"parts/{folder.name}/{path.name}", name=name)
            for path in sorted(folder.iterdir())
            if (name := PartName.parse(path.name)) is not None
        ]
        for folder in sorted(top.iterdir())
        if JOB_ID.fullmatch(folder.name) and folder.is_dir()
    }
