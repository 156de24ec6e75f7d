"""The store: all transactions of one database, grouped into managers."""

from __future__ import annotations

from batchgen.database.database import Database
from batchgen.jobs.dispatching.dispatch import DispatchManager
from batchgen.jobs.dispatching.splits import SplitManager
from batchgen.jobs.finalization import FinalizationManager
from batchgen.jobs.jobs import JobManager
from batchgen.jobs.leases import LeaseManager
from batchgen.jobs.records.statistics import StatisticsManager
from batchgen.jobs.workers import WorkerManager


class Store:
    """All operations on jobs, shards, leases and parts.

    store = Store(Database("postgresql://batchgen@db/batchgen"))
    lease = store.leases.claim(shard_id, owner="host/4711", ttl=60.0)

    Every method is one transaction and may be called from any thread.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.jobs = JobManager(database)
        self.leases = LeaseManager(database)
        self.splits = SplitManager(database)
        self.dispatch = DispatchManager(database)
        self.finalization = FinalizationManager(database)
        self.workers = WorkerManager(database)
        self.statistics = StatisticsManager(database)

    def __repr__(self) -> str:
        return f"Store({self.database!r})"

    def close(self) -> None:
        """Close every idle connection."""
        self.database.close()
