"""What the name of a part says: `7.e2.<uuid>.parquet`, `ckpt-7.e2.<uuid>.parquet`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_NAME: Final = re.compile(r"(ckpt-)?(\d{1,18})\.e(\d{1,18})\.\w+\.parquet")
_UNFINISHED: Final = re.compile(r"\.(.+)\.[0-9a-f]+\.tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartName:
    """Whose a file in a job's folder of parts is."""

    shard: int  # sequence number, unique in the database
    epoch: int  # of the lease it was written under
    is_checkpoint: bool
    is_unfinished: bool  # a write that did not come to its end

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read a file's name; None where no part has such a name."""
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
