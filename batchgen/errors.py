"""All errors that batchgen raises on purpose.

BatchgenError                     exit 1
├── InvalidInput                  exit 2   the prompt file, found before a job exists
│   ├── MissingInput
│   ├── EmptyInput
│   └── BadLines
├── InvalidParameter              exit 2   a flag, a --param, a window, a setting
├── ModelError                    exit 2
│   ├── UnsafeModel
│   ├── UnsupportedModel
│   ├── ModelExists
│   └── UnknownModel              exit 4
├── EndpointNotAllowed            exit 2   an endpoint on a host that the operator does not name
├── OutputConflict                exit 2   the output folder holds another job
├── OutputRefused                 exit 1   standard output cannot be written
├── JobNotFound                   exit 4
├── TenantNotFound                exit 4
├── KeyNotFound                   exit 4
├── WebhookNotFound               exit 4
├── QuotaExceeded                 exit 4   a tenant has as much as it may
├── FileNotFound                  exit 4   of the Batch API
├── BatchNotFound                 exit 4
├── NotAllowed                    exit 4   a transition the job's state does not permit
├── KeyRefused                    exit 4   a server does not accept the API key for this
├── NotRunning                    exit 4   there is no `batchgen up` to end
├── NoPermission                  exit 4   a file or folder of another user
├── Unavailable                   exit 3
│   ├── DatabaseUnavailable
│   │   └── DatabaseDamaged               waiting would not help
│   ├── BrokerUnavailable
│   ├── ServerUnavailable
│   ├── EndpointUnavailable
│   ├── SchemaMismatch
│   ├── StoreMismatch
│   └── HomeLocked
├── NotDelivered                  exit 1   a receiver did not accept an event
├── EngineFailed                  exit 1   the engine child could not start or died
│   └── OutOfMemory               exit 1   it needed more memory than there was
├── Corrupt                       exit 1   bytes on disk differ from what SQL or a manifest says
└── Fenced                        exit 1   another owner holds this lease now (internal)

A class docstring is the default message: what is wrong, then what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class BatchgenError(Exception):
    """Something went wrong. Run the command again with --verbose for the details."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or " ".join((type(self).__doc__ or "").split()))

    @property
    def message(self) -> str:
        """The text shown to the user."""
        return str(self.args[0])


class InvalidInput(BatchgenError):
    """The input cannot be used. Check it with `batchgen validate FILE`."""

    exit_code = 2


class MissingInput(InvalidInput):
    """The input file does not exist or cannot be read. Check the path."""


class EmptyInput(InvalidInput):
    """The input holds no rows. Write one JSON object a line."""


SHOWN = 20  # problems that a message lists


@dataclass(frozen=True, slots=True, kw_only=True)
class LineProblem:
    """One problem in one line of an input file."""

    line: int  # 1-based, as editors count
    code: str
    message: str
    param: str | None = None

    def __str__(self) -> str:
        return f"line {self.line}: {self.message} [{self.code}]"


def _alike(problems: list[LineProblem]) -> list[tuple[LineProblem, list[int]]]:
    """Return each mistake once: the first line that has it, and the numbers of all such lines."""
    lines: dict[str, list[int]] = {}
    first: dict[str, LineProblem] = {}
    for problem in problems:
        first.setdefault(problem.message, problem)
        lines.setdefault(problem.message, []).append(problem.line)
    return [(first[message], numbers) for message, numbers in lines.items()]


def _others(number: int) -> str:
    return f" (and {number} more {'line' if number == 1 else 'lines'} alike)" if number else ""


class BadLines(InvalidInput):
    """Some lines are not usable. Correct them, or keep them as error rows."""

    REMEDY = "Correct them, or keep them as error rows: on_invalid is row-error then."

    def __init__(self, problems: list[LineProblem], total: int, *, remedy: str = REMEDY) -> None:
        self.problems = problems
        self.total = total
        #: False if a line repeats an id, which is refused in any case.
        self.may_be_error_rows = remedy == self.REMEDY
        mistakes = _alike(problems)[:SHOWN]
        shown = "\n".join(f"  {first}{_others(len(lines) - 1)}" for first, lines in mistakes)
        hidden = total - len({line for _, lines in mistakes for line in lines})
        more = f"\n  … and {hidden} more" if hidden else ""
        plural = "line is" if total == 1 else "lines are"
        super().__init__(f"{total} {plural} not usable:\n{shown}{more}\n{remedy}")


class InvalidParameter(BatchgenError):
    """A parameter has a value that cannot be used."""

    exit_code = 2

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class ModelError(BatchgenError):
    """The model cannot be used."""

    exit_code = 2


class UnsafeModel(ModelError):
    """The model folder holds code or pickled weights. Convert it to safetensors without code."""


class UnsupportedModel(ModelError):
    """The engine cannot compute this model correctly."""


class ModelExists(ModelError):
    """A model of this name is registered. Choose another name, or remove it first."""


class UnknownModel(ModelError):
    """No model of this name is registered. See `batchgen models ls`."""

    exit_code = 4


class EndpointNotAllowed(BatchgenError):
    """This endpoint may not be asked. Name its host in BATCHGEN_ENDPOINT__HOSTS."""

    exit_code = 2


class OutputConflict(BatchgenError):
    """The output folder belongs to another job. Choose another folder."""

    exit_code = 2


class OutputRefused(BatchgenError):
    """Standard output cannot be written. Direct it to where there is room."""


class JobNotFound(BatchgenError):
    """No such job. See `batchgen ls`."""

    exit_code = 4


class TenantNotFound(BatchgenError):
    """No such tenant. See `batchgen tenants ls`."""

    exit_code = 4


class KeyNotFound(BatchgenError):
    """No such key. See `batchgen keys ls`."""

    exit_code = 4


class FileNotFound(BatchgenError):
    """No such file. It may have been deleted, or have expired."""

    exit_code = 4

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class BatchNotFound(BatchgenError):
    """No such batch."""

    exit_code = 4


class WebhookNotFound(BatchgenError):
    """No such webhook. See `batchgen webhooks ls`."""

    exit_code = 4


class QuotaExceeded(BatchgenError):
    """A quota of the tenant is used up. Wait for its jobs, or see `batchgen tenants`."""

    exit_code = 4

    def __init__(
        self,
        message: str | None = None,
        *,
        quota: str = "",
        limit: int = 0,
        number: int = 0,
        what: str = "",
    ) -> None:
        #: The name of the limit, such as max_jobs; a client knows the name and the message only.
        self.quota = self.param = quota
        self.limit = limit
        super().__init__(
            message
            or f"The quota {quota} ({what}) is {limit:,}; this would make {number:,}. Wait for "
            "jobs to end, remove what is not needed, or ask the operator for more "
            "(`batchgen tenants set`)."
        )


class NotAllowed(BatchgenError):
    """The job's state does not permit this. See `batchgen status JOB`."""

    exit_code = 4


class KeyRefused(BatchgenError):
    """The server accepts valid API keys only. Check BATCHGEN_API_KEY, or the profile's api_key."""

    exit_code = 4


class NotRunning(BatchgenError):
    """No `batchgen up` runs on this home. Start one with `batchgen up --model NAME`."""

    exit_code = 4


class NoPermission(BatchgenError):
    """Permission denied: this user may not use a file or folder that is needed."""

    exit_code = 4

    @classmethod
    def of(cls, error: PermissionError) -> NoPermission:
        """Return the error for a file that the system refuses to open, with its name."""
        where = f": {error.filename}" if error.filename else ""
        return cls(
            f"Permission denied{where}. It is another user's; docs/configuration.md says who may "
            "read what of a home."
        )


class Unavailable(BatchgenError):
    """A service that batchgen needs cannot be reached. Run `batchgen doctor`."""

    exit_code = 3


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached. Check BATCHGEN_DATABASE_URL and that the server runs."""


class DatabaseDamaged(DatabaseUnavailable):
    """The database is damaged. Nothing was written. Restore it from a backup, or move it away."""


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached. Check BATCHGEN_BROKER_URL and that the server runs."""


class ServerUnavailable(Unavailable):
    """The batchgen server cannot be reached. Check BATCHGEN_URL and that the server runs."""


class EndpointUnavailable(Unavailable):
    """The endpoint does not answer. Check its URL and that the server runs."""


class SchemaMismatch(Unavailable):
    """The database has another schema than this version. Run `batchgen db upgrade`."""


class StoreMismatch(Unavailable):
    """This home is not the store that the database belongs to. See docs/several-machines.md."""


class HomeLocked(Unavailable):
    """Another process works on this home. Stop it first, or use another BATCHGEN_HOME."""


class NotDelivered(BatchgenError):
    """The receiver of a webhook did not accept an event. See `batchgen webhooks ls`."""


class EngineFailed(BatchgenError):
    """The engine process ended. Its last words are in the log."""


class OutOfMemory(EngineFailed):
    """The engine ran out of memory. Lower engine.max_num_seqs or engine.kv_memory."""


class Corrupt(BatchgenError):
    """Stored bytes differ from what was recorded. Run `batchgen fsck`."""


class Fenced(BatchgenError):
    """Another owner holds this lease now. Results computed under it are dropped."""
