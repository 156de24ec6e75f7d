"""The service: all operations on the jobs, datasets and models of one home."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from batchgen.core.states import JobState
from batchgen.errors import JobNotFound, NotAllowed, UnknownModel
from batchgen.jobs.creation.job_creation import is_name
from batchgen.jobs.records.job_records import LOCAL_TENANT, JobRecord, Progress, WorkerRecord
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.models.registry import Registry
from batchgen.service.access import Access
from batchgen.service.opened import Opened
from batchgen.service.views import JobView, starts_worker
from batchgen.settings import Settings
from batchgen.storage.storage import LocalStorage
from batchgen.tenants.usage import UsageRecord

if TYPE_CHECKING:
    from batchgen.jobs.removals import Remover
    from batchgen.repair.adoption import Finding
    from batchgen.repair.garbage import Collector
    from batchgen.repair.invariants import Violation
    from batchgen.service.batches import Batches
    from batchgen.service.files import Files
    from batchgen.service.results import Results
    from batchgen.service.submission import Notice, Submission
    from batchgen.service.webhooks import Webhooks

MISSED_BEATS = 3  # heartbeats that a live worker may miss
PUBLIC_ID = re.compile("[0-9a-f]{32}")
BEGINNING = re.compile("[0-9a-f]{4,32}")  # or end


class Service:
    """Operates on one home: its jobs, its datasets and its models.

    service = Service(Settings())
    with open("prompts.jsonl", "rb") as rows:
        job = service.submit(rows, Submission(model="smollm2-135m"))
    service.status(job.public_id).rows_done

    A job is named by its id, by the first characters of it, or by its name, which means the newest
    job of that name. Every method raises DatabaseUnavailable or SchemaMismatch if the database
    cannot be used, and JobNotFound for a job that does not exist. A method that reads or writes
    files raises StoreMismatch if the home is not the one that the database belongs to. Nothing is
    opened until the first call.
    """

    def __init__(self, settings: Settings, *, models: Path | None = None) -> None:
        self.settings = settings
        #: The registry; `batchgen run` uses the user's, although its job has a home of its own.
        self.models = Registry(models or settings.home / "models")
        #: The owner of the jobs that this service sees and submits.
        self.tenant = LOCAL_TENANT
        #: The API key that submits, None for the command line.
        self.key_id: str | None = None
        self._opened = Opened(settings)

    def for_tenant(self, tenant: str, *, key_id: str | None = None) -> Service:
        """Return a service that sees the jobs of one tenant only.

        It shares the open database, the storage and the models with this one. To make one for each
        request costs nothing.
        """
        scoped = Service.__new__(Service)
        scoped.settings, scoped.models, scoped._opened = self.settings, self.models, self._opened
        scoped.tenant, scoped.key_id = tenant, key_id
        return scoped

    @property
    def store(self) -> Store:
        """The store: the transactions of the database."""
        return self._opened.store

    @property
    def storage(self) -> LocalStorage:
        """The storage of the home; its methods raise StoreMismatch if it is the wrong home."""
        return self._opened.storage

    @property
    def access(self) -> Access:
        """The tenants and keys of the store, for its operator."""
        return self._opened.access

    @cached_property
    def results(self) -> Results:
        """The results of jobs."""
        from batchgen.service.results import Results  # imports pyarrow, which is slow

        return Results(store=self.store, storage=self.storage, find=self.job)

    @cached_property
    def files(self) -> Files:
        """The files of the tenant in OpenAI's Batch API."""
        from batchgen.service.files import Files

        return Files(self.store, self.storage, tenant=self.tenant, key_id=self.key_id)

    @cached_property
    def batches(self) -> Batches:
        """The batches of the tenant in OpenAI's Batch API."""
        from batchgen.service.batches import Batches

        return Batches(
            self.store,
            self.storage,
            models=self.models,
            find_model=self.model,
            tenant=self.tenant,
            key_id=self.key_id,
        )

    @cached_property
    def webhooks(self) -> Webhooks:
        """The webhooks of the tenant."""
        from batchgen.service.webhooks import Webhooks  # imports httpx2

        return Webhooks(self.store.database, self.settings, tenant=self.tenant)

    def close(self) -> None:
        """Close idle database connections."""
        self._opened.close()

    def submit(
        self, source: BinaryIO, submission: Submission, *, notice: Notice | None = None
    ) -> JobRecord:
        """Store the rows of `source` and queue a job; see `batchgen.service.submission.submit`.

        Raises UnknownModel before anything is read.
        """
        from batchgen.service.submission import submit

        model = self.model(submission.model)
        return submit(
            source,
            submission,
            store=self.store,
            storage=self.storage,
            model=model,
            notice=notice,
            tenant=self.tenant,
            key_id=self.key_id,
        )

    def model(self, name: str) -> ModelRecord:
        """Return a registered model.

        Raises UnknownModel, or StoreMismatch if this is the wrong home, which has other models.
        """
        try:
            return self.models.get(name)
        except UnknownModel:
            if self.settings.database_url:
                self.storage.check()
            raise

    def job(self, ref: str) -> JobRecord:
        """Return the job that `ref` names; if there are several, the newest."""
        return self._find(ref, limit=1)[0]

    def find(self, ref: str) -> list[JobRecord]:
        """Return the jobs that `ref` names, newest first; raise JobNotFound if there is none.

        An id, or a unique beginning or end of it, names one job. A name means all jobs with it.
        """
        return self._find(ref, limit=None)

    def _find(self, ref: str, *, limit: int | None) -> list[JobRecord]:
        jobs = self.store.jobs
        if PUBLIC_ID.fullmatch(ref):
            return [jobs.get(ref, tenant=self.tenant)]
        if not is_name(ref):
            raise JobNotFound("No job can have such an id or a name. See `batchgen ls`.")
        if named := jobs.named(ref, tenant=self.tenant, limit=limit):
            return named
        if BEGINNING.fullmatch(ref):
            return [jobs.get(ref, tenant=self.tenant)]
        close = get_close_matches(ref, jobs.newest_names(tenant=self.tenant), n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else "See `batchgen ls`."
        raise JobNotFound(f"No job has the id or the name {ref!r}. {hint}")

    def records(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[JobRecord]:
        """Return jobs, newest first; `after` is the id of the last job of the page before."""
        if name is not None and not is_name(name):
            return []  # PostgreSQL refuses some of what cannot be a name
        return self.store.jobs.list(
            tenant=self.tenant,
            states=None if state is None else [JobState(state)],
            name=name,
            limit=limit,
            before_id=None if after is None else self.job(after).id,
        )

    def jobs(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[JobView]:
        """Return views of the jobs that `records` returns."""
        return self.views(self.records(state=state, name=name, limit=limit, after=after))

    def views(self, jobs: Collection[JobRecord]) -> list[JobView]:
        """Return a view of each job."""
        workers = self.workers()
        progress = self.store.jobs.progress_of([job.id for job in jobs])
        return [self._view_of(job, workers, progress[job.id]) for job in jobs]

    def status(self, ref: str) -> JobView:
        """Return a view of one job."""
        return self._view(self.job(ref), self.workers())

    def pause(self, ref: str) -> JobView:
        """Pause a job; its finished rows are kept. Raises NotAllowed if it has ended."""
        return self._view(self.store.jobs.pause(self.job(ref).id), self.workers())

    def resume(self, ref: str) -> JobView:
        """Resume a paused job; raise NotAllowed if it has ended."""
        return self._view(self.store.jobs.resume(self.job(ref).id), self.workers())

    def cancel(self, ref: str) -> JobView:
        """Stop a job for good; rows without an answer become error rows.

        A coordinator, or `batchgen cancel` itself, writes its dataset then. Raises NotAllowed if
        there is nothing to stop any more. To cancel a job twice is no error.
        """
        return self._view(self.store.jobs.cancel(self.job(ref).id), self.workers())

    def removable(self, ref: str) -> str:
        """Return the id of the job that `ref` names; the job may be removed already."""
        removed = PUBLIC_ID.fullmatch(ref) and self._remover.is_removed(ref, tenant=self.tenant)
        return ref if removed else self.job(ref).public_id

    def remove(self, ref: str) -> None:
        """Delete a job that has ended, its files, and its input if no other job uses it.

        A cancelled job also counts as ended if no worker and no finaliser works on it. Raises
        NotAllowed if a job may go on. To remove a job twice is no error.
        """
        self._remover.remove(self.removable(ref))

    def finish_removals(self) -> None:
        """Delete the files of removed jobs whose removal was interrupted."""
        for removal in self._remover.unfinished():
            self._remover.finish(removal)

    @cached_property
    def _remover(self) -> Remover:
        from batchgen.jobs.removals import Remover

        return Remover(self.store.database, self.storage)

    def fsck(self) -> list[Violation]:
        """Check the invariants of every job, in SQL and on disk; [] means no error."""
        from batchgen.repair.invariants import check_invariants

        return check_invariants(self.store, self.storage)

    def adopt(self) -> Iterator[Finding]:
        """Register parts that a restored database does not know; see `batchgen.repair.adoption`."""
        from batchgen.repair.adoption import Adopter

        return Adopter(self.store, self.storage).adopt()

    def collector(self) -> Collector:
        """Return the collector, which finds and removes files that will never be read."""
        from batchgen.repair.garbage import Collector

        return Collector(self.store, self.storage, min_age=self.settings.garbage_age)

    @property
    def starter(self) -> str:
        """The command that starts a worker for this home."""
        return starts_worker(self.settings)

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Return the workers that have sent a heartbeat recently."""
        fresh = MISSED_BEATS * self.settings.heartbeat_interval
        return tuple(self.store.workers.list(alive_within=fresh))

    def usage(self) -> list[UsageRecord]:
        """Return what the ended jobs of the tenant have used, by key and model."""
        return self.access.usage.list(tenant=self.tenant)

    def remove_model(self, name: str) -> None:
        """Remove a model; raise NotAllowed while a job that has not ended needs it."""
        self.models.get(name)
        using = self.store.jobs.needing_model(name)
        if using is not None:
            raise NotAllowed(
                f"Job {using.public_id} still needs the model {name!r}. "
                "Wait for it or cancel it first."
            )
        self.models.remove(name)

    def _view(self, job: JobRecord, workers: Iterable[WorkerRecord]) -> JobView:
        return self._view_of(job, workers, self.store.jobs.progress(job.id))

    def _view_of(
        self, job: JobRecord, workers: Iterable[WorkerRecord], progress: Progress
    ) -> JobView:
        return JobView(
            job=job,
            progress=progress,
            workers=tuple(worker for worker in workers if worker.model == job.model),
            dataset=self._dataset_of(job),
            starter=self.starter,
        )

    def _dataset_of(self, job: JobRecord) -> Path | None:
        # Without a guard: the path of the dataset does not depend on the store.
        files = LocalStorage(self.settings.home)
        return files.path(job.dataset_path) if job.dataset_path else None
