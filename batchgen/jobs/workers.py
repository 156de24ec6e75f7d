"""Workers: heartbeats, models and slots of the live ones."""

from __future__ import annotations

import orjson
from sqlalchemy import Connection, delete, func, select

from batchgen.database.clock import is_recent
from batchgen.database.database import now_db
from batchgen.database.tables import upsert, workers
from batchgen.database.transactions import Manager, reading, repeatable
from batchgen.jobs.records.job_records import WorkerRecord

WorkerRecords = list[WorkerRecord]
Models = list[str]


class WorkerManager(Manager):
    """The transactions on the table of workers. Only limits and estimates depend on it."""

    @repeatable
    def heartbeat(self, connection: Connection, worker: WorkerRecord) -> None:
        """Store the report of a worker, with the time of the database's clock."""
        row = {
            "model": worker.model,
            "slots": worker.slots,
            "device": worker.device,
            "pool_blocks": worker.pool_blocks,
            "version": worker.version,
            "stats": orjson.dumps(worker.stats).decode(),
            "heartbeat_at": now_db(),
        }
        connection.execute(
            upsert(connection, workers)
            .values(id=worker.id, started_at=now_db(), **row)
            .on_conflict_do_update(index_elements=["id"], set_=row)
        )

    @reading
    def list(self, connection: Connection, *, alive_within: float) -> WorkerRecords:
        """Return the workers with a heartbeat in the last `alive_within` seconds, oldest first."""
        alive = is_recent(workers.c.heartbeat_at, alive_within)
        rows = connection.execute(
            select(workers).where(alive).order_by(workers.c.started_at, workers.c.id)
        )
        return [WorkerRecord(**{**row._mapping, "stats": orjson.loads(row.stats)}) for row in rows]

    @reading
    def slots(self, connection: Connection, *, alive_within: float) -> dict[str, int]:
        """Return, by model, how many shards the live workers can hold at a time."""
        alive = is_recent(workers.c.heartbeat_at, alive_within)
        rows = connection.execute(
            select(workers.c.model, func.sum(workers.c.slots))
            .where(alive)
            .group_by(workers.c.model)
        )
        return {model: int(slots) for model, slots in rows}

    @reading
    def idle(self, connection: Connection, *, alive_within: float) -> Models:
        """Return the models for which some live workers have no shard and others have one."""
        alive = is_recent(workers.c.heartbeat_at, alive_within)
        shards: dict[str, set[bool]] = {}
        for row in connection.execute(select(workers.c.model, workers.c.stats).where(alive)):
            shards.setdefault(row.model, set()).add(bool(orjson.loads(row.stats).get("shards")))
        return [model for model, busy in shards.items() if busy == {True, False}]

    @repeatable
    def gone(self, connection: Connection, worker_id: str) -> None:
        """Delete the row of a worker that has ended normally."""
        connection.execute(delete(workers).where(workers.c.id == worker_id))
