from __future__ import annotations

from pathlib import Path

import pytest

from batchgen.dataset.part_files import PartName
from batchgen.dataset.parts import part_key
from batchgen.storage.storage import PendingWrite
from tests.support.result_rows import JOB


@pytest.mark.parametrize(("kind", "is_checkpoint"), [("part", False), ("ckpt", True)])
def test_reads_the_names_that_parts_are_given(kind: str, is_checkpoint: bool) -> None:
    key = part_key(JOB, 12, 3, kind)  # type: ignore[arg-type]
    name = PartName.parse(key.rpartition("/")[2])
    assert name == PartName(shard=12, epoch=3, is_checkpoint=is_checkpoint, is_unfinished=False)


def test_reads_the_name_of_an_unfinished_write(tmp_path: Path) -> None:
    pending = PendingWrite(tmp_path / part_key(JOB, 12, 3))
    name = PartName.parse(pending.path.name)
    assert name == PartName(shard=12, epoch=3, is_checkpoint=False, is_unfinished=True)


@pytest.mark.parametrize(
    "name",
    ["", "README.md", "12.parquet", "x.e1.aa.parquet", "1.e1.aa.parquet.bak", ".1.e1.aa.parquet"],
)
def test_other_names_are_no_parts(name: str) -> None:
    assert PartName.parse(name) is None
