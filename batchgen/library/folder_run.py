"""A run in an output folder, the base of both `batchgen run` and `batchgen.run`.

open ──► compute, if rows are left ──► deliver
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from batchgen.errors import InvalidParameter, ModelError
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service.run_folder import RunFolder
from batchgen.service.submission import Notice, Submission
from batchgen.service.views import JobView
from batchgen.settings import Settings
from batchgen_workers.service.home_lock import locked_home

if TYPE_CHECKING:
    from batchgen_workers.service.local import LocalProgress

#: Called with the job before its rows are computed. It returns a context manager that is open while
#: they are computed, and yields a function that is called about twice a second.
Watch: TypeAlias = "Callable[[JobView], AbstractContextManager[Callable[[LocalProgress], None]]]"


class FolderRun:
    """One run in one output folder."""

    def __init__(self, out: Path, settings: Settings, *, models: Path | None = None) -> None:
        """Name the folder; `models` is that of the registry, None for the one of the settings."""
        self._folder = RunFolder(out, settings, models=models)
        self._job: JobRecord | None = None

    @property
    def out(self) -> Path:
        """Return the output folder, as an absolute path."""
        return self._folder.out

    @property
    def home(self) -> Path:
        """Return the home of the job while it runs, for log files."""
        return self._folder.settings.home

    def open(
        self, source: BinaryIO, submission: Submission, *, notice: Notice | None = None
    ) -> None:
        """Find or create the job of this folder; errors are those of `RunFolder.open`."""
        self._job = self._folder.open(source, submission, notice=notice)

    def finish(self, watch: Watch) -> JobView:
        """Compute the remaining rows, put the dataset in the folder, and return the job.

        Raises:
            KeyboardInterrupt: a signal came; the next run computes the remaining rows.
            InvalidParameter, ModelError: the engine cannot be created; the folders that this run
                created are removed.
            EngineFailed, HomeLocked, OSError: the run failed; finished rows are kept.
        """
        if not self._opened.state.ended:
            try:
                self._compute(watch)
            except (InvalidParameter, ModelError):
                self._folder.undo()
                raise
        return self._deliver()

    def status(self) -> JobView:
        """Return the current state of the job, after `open` and before it is delivered."""
        return self._folder.service.status(self._opened.public_id)

    def close(self) -> None:
        """Close the database."""
        self._folder.service.close()

    @property
    def _opened(self) -> JobRecord:
        assert self._job is not None
        return self._job

    def _compute(self, watch: Watch) -> None:
        from batchgen_workers.service.local import (
            run_local,  # slow to import, and not needed if the folder is refused
        )

        with watch(self.status()) as on_progress:
            ended = run_local(
                self._folder.settings,
                self._opened.public_id,
                models=self._folder.models,
                on_progress=on_progress,
            )
        if ended.interrupted:
            raise KeyboardInterrupt

    def _deliver(self) -> JobView:
        if self._folder.is_settled:
            return self._folder.deliver(self._opened)
        with locked_home(self.home):
            return self._folder.deliver(self._opened)
