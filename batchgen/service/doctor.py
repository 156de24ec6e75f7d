"""Check that everything that batchgen needs is available."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from batchgen.database.database import Database
from batchgen.database.identity import IdentityManager, open_storage
from batchgen.database.revisions import HEAD
from batchgen.errors import BatchgenError
from batchgen.models.registry import Registry
from batchgen.service.broker import ping
from batchgen.service.exposure import check_broker, check_database
from batchgen.settings import Settings
from batchgen.storage.durable_files import exists
from batchgen_kernels.cpu.compiler import BuildFailed, find_compiler

NEEDED_PYTHON = (3, 11)
LOW_DISK = 1 << 30  # bytes; with less, a larger job will not finish
TORCH_TIMEOUT = 120  # seconds; the first import on a cold disk is slow
TORCH_REPORT = (
    "import torch; cuda = torch.cuda.is_available(); "
    "print(torch.__version__, torch.cuda.get_device_name() if cuda else 'cpu only')"
)


class Result(StrEnum):
    """The result of a check."""

    OK = "ok"  #: No problem.
    WARNING = "warning"  #: Some commands will not work.
    FAILED = "failed"  #: No command works without it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check with its result."""

    name: str
    result: Result
    detail: str
    # advice for the user
    remedy: str | None = None

    @property
    def failed(self) -> bool:
        """True if the check failed, so that no command works."""
        return self.result is Result.FAILED

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return asdict(self)


def examine(settings: Settings) -> list[Check]:
    """Run all checks. They raise nothing and change nothing."""
    return [check(settings) for check in CHECKS]


def _python(settings: Settings) -> Check:
    version = platform.python_version()
    if sys.version_info < NEEDED_PYTHON:
        return _failed("python", version, "Use Python 3.11 or newer.")
    return _ok("python", version)


def _torch(settings: Settings) -> Check:
    # In a separate process: torch is large, and a broken build can crash the process.
    command = [sys.executable, "-c", TORCH_REPORT]
    remedy = "Install batchgen's dependencies anew, torch among them."
    try:
        report = subprocess.run(
            command, capture_output=True, text=True, timeout=TORCH_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return _failed("torch", f"does not load within {TORCH_TIMEOUT} s", remedy)
    if report.returncode:
        last = (report.stderr.strip().splitlines() or [f"exit {report.returncode}"])[-1]
        return _failed("torch", last, remedy)
    return _ok("torch", report.stdout.strip())


def _compiler(settings: Settings) -> Check:
    try:
        return _ok("compiler", str(find_compiler()))
    except BuildFailed as error:
        remedy = (
            "Install g++. Without it a CPU computes with plain torch, several times slower; "
            "a GPU needs none."
        )
        return Check(name="compiler", result=Result.WARNING, detail=str(error), remedy=remedy)


def _home(settings: Settings) -> Check:
    existing = _nearest(settings.home)
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        remedy = "Name another home with BATCHGEN_HOME, or make it readable and writable."
        return _failed("home", f"{existing}: permission denied", remedy)
    if not settings.home.is_dir():
        return _ok("home", f"{settings.home} (not made yet)")
    mode = settings.home.stat().st_mode
    if mode & 0o005:
        remedy = f"Unless that is meant: chmod o= {settings.home}"
        detail = f"{settings.home}: every user of this machine may read its prompts and answers"
        return Check(name="home", result=Result.WARNING, detail=detail, remedy=remedy)
    return _ok("home", str(settings.home))


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(_nearest(settings.home)).free
    detail = f"{free / (1 << 30):.1f} GiB free"
    if free < LOW_DISK:
        return _failed("disk", detail, "Make room, or move the home to a larger disk.")
    return _ok("disk", detail)


def _database(settings: Settings) -> Check:
    try:
        check_database(settings)
        with closing(Database(settings.effective_database_url)) as database:
            fresh = database.revision() is None and not settings.database_url
    except BatchgenError as error:
        return _failed("database", error.message)
    return _ok("database", database.shown + (" (made on first use)" if fresh else ""))


def _schema(settings: Settings) -> Check:
    try:
        check_database(settings)
        with closing(Database(settings.effective_database_url)) as database:
            if not settings.database_url and database.revision() is None:
                return _ok("schema", f"{HEAD} (made on first use)")
            database.check_schema()
    except BatchgenError as error:
        return _failed("schema", error.message)
    return _ok("schema", HEAD)


def _store(settings: Settings) -> Check:
    try:
        check_database(settings)
        with closing(Database(settings.effective_database_url)) as database:
            if database.revision() != HEAD or (known := IdentityManager(database).read()) is None:
                return _ok("store", "none yet: the first submit makes it")
            open_storage(database, settings.home).check()
    except (BatchgenError, OSError) as error:
        return _failed("store", str(error))
    return _ok("store", known[0])


def _broker(settings: Settings) -> Check:
    if not settings.broker_url:
        return _ok("broker", "none set: `run` needs none, `up` brings its own")
    try:
        check_broker(settings)
        return _ok("broker", ping(settings.broker_url))
    except BatchgenError as error:
        return _failed("broker", error.message)


def _models(settings: Settings) -> Check:
    try:
        names = Registry(settings.home / "models").names()
    except OSError as error:
        return _failed("models", str(error))
    if not names:
        remedy = "Import one with: batchgen models import NAME SOURCE"
        return Check(name="models", result=Result.WARNING, detail="none", remedy=remedy)
    return _ok("models", ", ".join(names))


def _endpoints(settings: Settings) -> Check:
    registry = Registry(settings.home / "models")
    try:
        names = [record.name for record in registry.list() if record.endpoint]
    except (BatchgenError, OSError) as error:
        return _failed("endpoints", str(error))
    answers = {name: _endpoint_answer(registry, name, settings) for name in names}
    detail = "; ".join(f"{name}: {answer[1]}" for name, answer in answers.items()) or "none"
    if all(answers_now for answers_now, _ in answers.values()):
        return _ok("endpoints", detail)
    remedy = "Jobs of these models wait. Ask again with: batchgen models check NAME"
    return Check(name="endpoints", result=Result.WARNING, detail=detail, remedy=remedy)


def _endpoint_answer(registry: Registry, name: str, settings: Settings) -> tuple[bool, str]:
    """Return whether an endpoint answers, and its server or the reason."""
    from batchgen.service.endpoints import check_endpoint  # needed by few homes

    try:
        return True, check_endpoint(registry, name, settings).server
    except BatchgenError as error:
        return False, error.message


def _ok(name: str, detail: str) -> Check:
    return Check(name=name, result=Result.OK, detail=detail)


def _failed(name: str, detail: str, remedy: str | None = None) -> Check:
    return Check(name=name, result=Result.FAILED, detail=detail, remedy=remedy)


def _nearest(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if _is_there(path))


def _is_there(path: Path) -> bool:
    try:
        return exists(path)
    except PermissionError:  # the parent exists and denies access
        return False


CHECKS: tuple[Callable[[Settings], Check], ...] = (
    _python,
    _torch,
    _compiler,
    _home,
    _disk,
    _database,
    _schema,
    _store,
    _broker,
    _models,
    _endpoints,
)
