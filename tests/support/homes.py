"""A home with a model that needs no weights, and jobs that end without an engine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from batchgen.core.kv_totals import KVTotals
from batchgen.core.rows import Choice, ResultRow
from batchgen.dataset.dataset import DatasetMeta, PartRef, Segment, write_dataset
from batchgen.dataset.parts import part_key, write_part
from batchgen.jobs.records.job_records import JobRecord, Lease, PartRecord
from batchgen.models.record import ModelRecord, hash_files, write_record
from batchgen.service import Service
from batchgen_workers.shard.finisher import footer_of
from tests.support.result_rows import error_row, ok_row

MODEL = "tiny"
TTL = 60.0  # seconds


def pin_model(home: Path, name: str = MODEL) -> ModelRecord:
    """Register a model that is a record and nothing else."""
    folder = home / "models" / name
    folder.mkdir(parents=True)
    record = ModelRecord(
        name=name,
        path=folder,
        dtype="float32",
        max_length=256,
        sha256=hash_files({}),
        architecture="LlamaForCausalLM",
        chat_template=True,
        source="./tiny",
        files={},
        created_at="2026-11-22T22:00:00+00:00",
    )
    write_record(record, folder)
    return record


def prompts(n_rows: int) -> bytes:
    """Return a prompt file of raw and chat lines."""
    lines = [
        f'{{"prompt": "Count to {row}", "topic": "numbers"}}\n'
        if row % 2
        else f'{{"messages": [{{"role": "user", "content": "Count to {row}"}}]}}\n'
        for row in range(n_rows)
    ]
    return "".join(lines).encode()


def answer_some(
    service: Service,
    job: JobRecord,
    *,
    shards: int = 1,
    failing: Collection[int] = (),
    cut: Collection[int] = (),
) -> None:
    """Claim, answer and commit some shards of a job, as a worker would."""
    service.store.dispatch.start_due()
    for shard in service.store.jobs.shards(job.id)[:shards]:
        lease = service.store.leases.claim(shard.id, owner="test/1", ttl=TTL)
        if lease is None:
            continue
        rows = [_answer(lease, row, failing, cut) for row in range(lease.pos_start, lease.pos_end)]
        part = write_part(
            service.storage,
            part_key(lease.job_public_id, lease.seq, lease.epoch),
            rows,
            footer_of(
                lease,
                KVTotals(
                    rows=sum(row.error is None for row in rows),
                    preemptions=1,
                    copies=len(rows),
                    utilisation=0.75,
                    sharing_saving=0.25,
                ),
            ),
        )
        service.store.leases.commit(lease, part)


def finish(
    service: Service, job: JobRecord, *, failing: Collection[int] = (), cut: Collection[int] = ()
) -> JobRecord:
    """Answer what is left of a job and write its dataset, as workers and finaliser would."""
    answer_some(service, job, shards=1_000_000, failing=failing, cut=cut)
    assert service.store.finalization.finalizable() == [job.id]
    final = service.store.finalization.claim(job.id, owner="test/1", ttl=TTL)
    assert final is not None
    segments = [
        _segment(segment.part, range(segment.pos_start, segment.pos_end))
        for segment in service.store.finalization.segments(job.id)
    ]
    info = write_dataset(
        service.storage,
        root=f"datasets/{job.public_id}/e{final.epoch}",
        segments=segments,
        meta=DatasetMeta(
            job_id=job.public_id,
            name=job.name,
            model=job.model,
            model_sha256=job.model_sha256,
            engine_version="0.1.0",
            params=job.params,
            input_sha256=job.input_sha256,
            n_rows=job.n_rows,
            created_at=job.created_at,
        ),
    )
    return service.store.finalization.complete(
        final, dataset_path=info.path, manifest_sha256=info.manifest_sha256
    )


def _segment(part: PartRecord | None, rows: range) -> Segment:
    if part is None:
        return [error_row(row, "batch_cancelled") for row in rows]
    return PartRef(path=part.path, n_rows=part.n_rows, sha256=part.sha256, kv=part.kv)


def _answer(lease: Lease, row: int, failing: Collection[int], cut: Collection[int]) -> ResultRow:
    if row in failing:
        return error_row(row, model=lease.model)
    if row in cut:
        choice = Choice(index=0, text=f"answer {row} and", finish_reason="length")
        return ok_row(row, model=lease.model, choices=[choice])
    return ok_row(row, model=lease.model)
