"""The program of a coordinator or worker of the local stack, and the function that starts it.

    python -m batchgen_workers.service.local_process coordinator | worker MODEL

Settings are passed in the environment, because a list of processes would show passwords in
arguments. The parent holds standard input open; at its end the process ends.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from batchgen.errors import BatchgenError
from batchgen.settings import Settings
from batchgen_workers.logs import configure_logging, get_logger
from batchgen_workers.retry import may_come_back
from batchgen_workers.streams import prepare_streams

STDERR = 2  # our own standard error, where logs go
#: Exit status after a temporary failure, which passes without help: EX_TEMPFAIL of sysexits.
TRY_AGAIN = 75
#: Settings of a client of another server.
OF_A_CLIENT = {"url", "api_key", "profile"}
FULL = (errno.ENOSPC, errno.EDQUOT)

log = get_logger(__name__)


def main(arguments: list[str]) -> int:
    """Run the coordinator or a worker until a signal to end; return the exit status."""
    return run(lambda: _work(arguments))


def run(work: Callable[[], None]) -> int:
    """Run a process of the stack: `work` until a signal to end; return the exit status."""
    configure_logging()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        work()
    except BatchgenError as error:
        log.error("process failed", error=error.message)
        return TRY_AGAIN if may_come_back(error) else error.exit_code
    except OSError as error:
        if error.errno not in FULL:
            raise
        log.error("process failed", error=str(error))
        return TRY_AGAIN
    return 0


def _work(arguments: list[str]) -> None:
    match arguments:
        case ["coordinator"]:
            from batchgen_workers.service.coordinator import run_coordinator

            run_coordinator(Settings())
        case ["worker", model, *factory]:
            from batchgen_workers.service.worker import run_worker

            run_worker(Settings(), model, **_factory(factory))
        case _:
            raise BatchgenError(f"{arguments} is no process of the stack.")


def spawn(
    settings: Settings,
    *arguments: str,
    program: str = "batchgen_workers.service.local_process",
    descriptors: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a process of the stack with these settings; its log goes to standard error.

    `program` names another module to run, `descriptors` what the process inherits.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", program, *arguments],
        env={**os.environ, **environment_of(settings)},
        stdin=subprocess.PIPE,
        stdout=STDERR,
        pass_fds=descriptors,
        # Ctrl-C in a terminal reaches the whole process group; `up` ends the processes in order
        start_new_session=True,
    )


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment variables that give a process of the home the same settings."""
    values: Mapping[str, Any] = settings.model_dump(mode="json", exclude=OF_A_CLIENT)
    return {
        f"BATCHGEN_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value != ""  # the default; an empty variable would be refused
    }


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _factory(given: list[str]) -> dict[str, str]:
    return {"factory": given[0]} if given else {}


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main(sys.argv[1:]))
