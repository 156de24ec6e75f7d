from __future__ import annotations

import pytest

from batchgen.dataset.parts import PartInfo
from batchgen.jobs.records import saved_segments
from batchgen.jobs.store import Store
from tests.support.jobs import OWNER, TTL, part_of, running_job


def test_parts_and_checkpoints_come_in_input_order_a_few_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_segments, "SAVED_TOGETHER", 2)
    job = running_job(store, 160)
    shards = store.jobs.shards(job.id)
    assert [shard.n_rows for shard in shards] == [32] * 5
    files: dict[int, PartInfo] = {}
    for shard in (shards[3], shards[0], shards[1]):  # 2 and 4 have nothing yet
        lease = store.leases.claim(shard.id, owner=OWNER, ttl=TTL)
        assert lease is not None
        files[shard.pos_start] = part = part_of(lease, n_err=1 if shard is shards[1] else 0)
        if shard is shards[3]:
            store.leases.checkpoint(lease, part)
        else:
            store.leases.commit(lease, part)

    def saved(start: int, *, only_failed: bool = False) -> list[tuple[int, str]]:
        found = store.finalization.saved(job.id, start=start, only_failed=only_failed)
        assert all(one.pos_end == one.pos_start + 32 for one in found)
        assert all(one.sha256 == files[one.pos_start].sha256 for one in found)
        return [(one.pos_start, one.path) for one in found]

    expected = [(start, files[start].path) for start in (0, 32, 96)]
    assert saved(0) == expected[:2]
    assert saved(31) == expected[:2]
    assert saved(32) == expected[1:]
    assert saved(127) == expected[2:]
    assert saved(128) == []
    # a checkpoint may hold failed rows
    assert saved(0, only_failed=True) == expected[1:]
