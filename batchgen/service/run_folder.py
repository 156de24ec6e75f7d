"""The folder of `batchgen run -o OUT`: a home of one job while it is computed, then a dataset.

OUT/.batchgen/batchgen.db inputs/ …      the home, for its owner only, until the job has ended
OUT/data/ OUT/errors/ OUT/README.md      the dataset, moved out of the home
OUT/.batchgen/manifest.json              its manifest, written last; then the home is removed

So OUT/**/*.parquet holds each row once, and later the manifest alone says what was run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from batchgen.core.states import JobState
from batchgen.dataset.export import check_free
from batchgen.dataset.manifest import MANIFEST, read_manifest
from batchgen.dataset.verify import check_file
from batchgen.errors import BatchgenError, Corrupt, InvalidParameter, NotAllowed, OutputConflict
from batchgen.inputs.record_file import MAX_RECORD_BYTES
from batchgen.inputs.stored_input import input_key
from batchgen.jobs.records.job_records import JobRecord
from batchgen.models.record import ModelRecord
from batchgen.requests.lines import check_defaults
from batchgen.service.finished import job_of_dataset, view_of_dataset
from batchgen.service.service import Service
from batchgen.service.submission import Notice, Submission
from batchgen.service.views import JobView
from batchgen.settings import Settings
from batchgen.storage.durable_files import exists
from batchgen.storage.store_id import STORE_ID

HOME = ".batchgen"
KEY = "run"  # idempotency key of the one job
CHUNK = 1 << 20  # bytes read at a time
DATABASE = "batchgen.db"

MEND = "Put it back, or remove the folder and run again."

#: Entries of the home that are removed when the dataset is complete; the logs are kept.
WORKING_COPIES = (
    *("inputs", "parts", "datasets"),
    *(f"{DATABASE}-journal", STORE_ID, "coordinator.lock"),
)


class RunFolder:
    """One output folder with its job."""

    def __init__(self, out: Path, settings: Settings, *, models: Path | None = None) -> None:
        self.out = out.absolute()
        #: The folder of models, by default in the user's own home.
        self.models = models or settings.home / "models"
        #: The settings of the home below the folder: SQLite, no broker.
        self.settings = settings.model_copy(
            update={"home": self.out / HOME, "database_url": "", "broker_url": ""}
        )
        self.service = Service(self.settings, models=self.models)
        # Folders that `open` created, the home first; empty if the home existed.
        self._made: list[Path] = []

    def open(
        self, source: BinaryIO, submission: Submission, *, notice: Notice | None = None
    ) -> JobRecord:
        """Return the job of this folder, created now or by an earlier run with the same request.

        Raises:
            OutputConflict: the folder holds another job, another dataset or other files; nothing
                was changed.
            Corrupt: a file of the finished dataset is missing or changed.
            UnknownModel, InvalidParameter, InvalidInput: as `Service.submit`; folders created by
                this call are removed again.
        """
        model = self.service.models.get(submission.model)
        check_defaults(dict(submission.params), model.max_length, model.dialect)
        job = self._finished() or self._job()
        if job is not None:
            # A pipe with another input may never end, so read only as much as the right input has.
            self._refuse_other(
                job, submission, model, _sha256_of(source, most=self._input_limit(job))
            )
            return job
        check_free(self.out)
        self._make_home()
        try:
            return self._submit(source, submission, notice)
        except BaseException:
            if not self._holds_job():  # another `run` may have created the job meanwhile
                self.undo()
            raise

    @property
    def is_settled(self) -> bool:
        """True if nothing of the home is left to be moved or removed."""
        return not exists(self.settings.home / DATABASE)

    def deliver(self, job: JobRecord) -> JobView:
        """Move the dataset of an ended job to its place, remove the home, and return the job.

        If this is interrupted, call it again. The home of a failed job is kept.
        """
        if exists(self.out / MANIFEST):
            if not self.is_settled:
                self._remove_working_copies()
            return view_of_dataset(self.out)
        view = self.service.status(job.public_id)
        if view.dataset is None:
            return view
        self.service.results.move(job.public_id, self.out)
        self._remove_working_copies()
        return dataclasses.replace(view, dataset=self.out)

    def _remove_working_copies(self) -> None:
        """Remove them, the database last: its presence means that the removal is not complete."""
        self.service.close()
        for name in WORKING_COPIES:
            path = self.settings.home / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self.settings.home.chmod(self.out.stat().st_mode)  # readers of OUT may verify it
        (self.settings.home / DATABASE).unlink(missing_ok=True)

    def undo(self) -> None:
        """Remove the folders that `open` created; nothing if an earlier run created them."""
        if not self._made:
            return
        self.service.close()
        home, *above = self._made
        shutil.rmtree(home, ignore_errors=True)
        with suppress(OSError):  # another program has created a file in it
            for folder in above:
                folder.rmdir()
        self._made = []

    def _finished(self) -> JobRecord | None:
        """Return the job of the dataset in the folder; raise Corrupt if it is not complete."""
        if not exists(self.out / MANIFEST):
            return None
        manifest = read_manifest(self.out)
        for entry in (*manifest.data_files(), *manifest.error_files()):  # users may edit the card
            if problem := check_file(self.out, entry):
                raise Corrupt(f"The dataset in {self.out} is not whole: {problem} {MEND}")
        return job_of_dataset(manifest)

    def _input_limit(self, job: JobRecord) -> int | None:
        """Return the bytes of the job's input, or an upper bound if it is not kept any more."""
        if exists(self.out / MANIFEST):
            return job.n_rows * MAX_RECORD_BYTES
        return self.service.storage.size(input_key(job.input_sha256))

    def _job(self) -> JobRecord | None:
        if self.is_settled:
            return None
        jobs = self.service.records(limit=1)
        return jobs[0] if jobs else None

    def _holds_job(self) -> bool:
        try:
            return self._job() is not None
        except BatchgenError:  # there is no usable database
            return False

    def _make_home(self) -> None:
        home = self.settings.home
        try:
            missing = [path for path in (home, *home.parents) if not exists(path)]
            home.parent.mkdir(parents=True, exist_ok=True)
            home.mkdir(mode=0o700)
        except FileExistsError:
            if not home.is_dir():
                message = f"{home} is not a folder. Choose another."
                raise OutputConflict(message) from None
            return
        except OSError as error:
            message = f"The output folder {self.out} cannot be made: {error.strerror}."
            raise InvalidParameter(message, param="output") from error
        self._made = missing

    def _submit(self, source: BinaryIO, submission: Submission, notice: Notice | None) -> JobRecord:
        try:
            keyed = dataclasses.replace(submission, idempotency_key=KEY)
            return self.service.submit(source, keyed, notice=notice)
        except NotAllowed as error:  # another `run` has created its job here meanwhile
            raise self._conflict("another prompt file or other parameters") from error

    def _refuse_other(
        self, job: JobRecord, submission: Submission, model: ModelRecord, sha256: str
    ) -> None:
        if job.model != model.name:
            raise self._conflict(f"the model {job.model}")
        if job.model_sha256 != model.sha256:
            raise self._conflict(f"another version of the model {job.model}")
        if job.params != dict(submission.params):
            raise self._conflict(f"the parameters {job.params}")
        if job.input_sha256 != sha256:
            raise self._conflict("another prompt file")
        if job.state is JobState.FAILED:
            raise OutputConflict(
                f"The job in {self.out} failed: {job.error} Remove the folder, or choose another."
            )

    def _conflict(self, other: str) -> OutputConflict:
        return OutputConflict(
            f"{self.out} holds a job with {other}. Give it the same file and parameters to go on, "
            "or choose another folder."
        )


def _sha256_of(source: BinaryIO, *, most: int | None) -> str:
    """Return the SHA-256 of the rest of a source; stop after more than `most` bytes."""
    digest = hashlib.sha256()
    n_read = 0
    while (most is None or n_read <= most) and (chunk := source.read(CHUNK)):
        n_read += len(chunk)
        digest.update(chunk)
    return digest.hexdigest()
