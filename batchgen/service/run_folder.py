"""The folder of `batchgen run -o OUT`: a home of one job below it, its dataset beside that.

OUT/data/ OUT/errors/ OUT/README.md      the dataset, once the job has ended
OUT/.batchgen/manifest.json              its manifest
OUT/.batchgen/batchgen.db inputs/ …      the home, from the first moment
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from batchgen.errors import BatchgenError, InvalidParameter, NotAllowed, OutputConflict
from batchgen.io.export import check_free
from batchgen.io.inputs import input_key
from batchgen.io.lines import check_defaults
from batchgen.jobs.records import JobRecord
from batchgen.models.record import ModelRecord
from batchgen.service.service import Service
from batchgen.service.submission import Submission
from batchgen.settings import Settings

HOME = ".batchgen"
KEY = "run"  # idempotency key of the one job
CHUNK = 1 << 20  # bytes read at a time


class RunFolder:
    """One output folder and the job it is for."""

    def __init__(self, out: Path, settings: Settings) -> None:
        self.out = out.absolute()
        #: Where models come from: the user's own home.
        self.models = settings.home / "models"
        #: The settings of the home below the folder: SQLite, no broker.
        self.settings = settings.model_copy(
            update={"home": self.out / HOME, "database_url": "", "broker_url": ""}
        )
        self.service = Service(self.settings, models=self.models)
        # Folders that `open` made, the home first; none where somebody else made the home.
        self._made: list[Path] = []

    def open(self, source: BinaryIO, submission: Submission) -> JobRecord:
        """Return the job of this folder, made now or by an earlier run with the same request.

        Raises:
            OutputConflict: the folder holds another job, or files of somebody else; nothing
                was touched.
            UnknownModel, InvalidParameter, InvalidInput: as `Service.submit`; what was made of
                the folder until then is gone again.
        """
        model = self.service.models.get(submission.model)
        check_defaults(dict(submission.params), model.max_length)
        job = self._job()
        if job is not None:
            # Of another input, which a pipe may never end, no more is read than of the right one.
            most = self.service.storage.size(input_key(job.input_sha256))
            self._refuse_other(job, submission, model, _sha256_of(source, most=most))
            return job
        check_free(self.out)
        self._make_home()
        try:
            return self._submit(source, submission)
        except BaseException:
            if not self._holds_job():  # another `run` may have been faster
                self.undo()
            raise

    def export(self, job: JobRecord) -> Path:
        """Place the finished dataset in the folder and return it."""
        return self.service.results.export(job.public_id, self.out)

    def undo(self) -> None:
        """Remove what `open` made of the folder; nothing where an earlier run had made it."""
        if not self._made:
            return
        self.service.close()
        home, *above = self._made
        shutil.rmtree(home, ignore_errors=True)
        with suppress(OSError):  # somebody else's file has appeared in it
            for folder in above:
                folder.rmdir()
        self._made = []

    def _job(self) -> JobRecord | None:
        if not (self.settings.home / "batchgen.db").exists():
            return None
        jobs = self.service.records(limit=1)
        return jobs[0] if jobs else None

    def _holds_job(self) -> bool:
        try:
            return self._job() is not None
        except BatchgenError:  # not even a database
            return False

    def _make_home(self) -> None:
        home = self.settings.home
        missing = [path for path in (home, *home.parents) if not path.exists()]
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            home.mkdir()
        except FileExistsError:
            if not home.is_dir():
                message = f"{home} is not a folder. Choose another with -o."
                raise OutputConflict(message) from None
            return
        except OSError as error:
            message = f"The output folder {self.out} cannot be made: {error.strerror}."
            raise InvalidParameter(message, param="output") from error
        self._made = missing

    def _submit(self, source: BinaryIO, submission: Submission) -> JobRecord:
        try:
            keyed = dataclasses.replace(submission, idempotency_key=KEY)
            return self.service.submit(source, keyed)
        except NotAllowed as error:  # another `run` on this folder was faster
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
        if job.state.ended and job.dataset_path is None:
            raise OutputConflict(
                f"The job in {self.out} failed: {job.error} Remove the folder, or choose another."
            )

    def _conflict(self, other: str) -> OutputConflict:
        return OutputConflict(
            f"{self.out} holds a job with {other}. Give it the same file and parameters to go on, "
            "or choose another folder with -o."
        )


def _sha256_of(source: BinaryIO, *, most: int | None) -> str:
    """Return the SHA-256 of what is left of a source, or of more than `most` bytes of it."""
    digest = hashlib.sha256()
    n_read = 0
    while (most is None or n_read <= most) and (chunk := source.read(CHUNK)):
        n_read += len(chunk)
        digest.update(chunk)
    return digest.hexdigest()
