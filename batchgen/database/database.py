"""One database, SQLite or PostgreSQL, with the same interface for transactions."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Double,
    Engine,
    QueuePool,
    create_engine,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from batchgen.database.database_url import parse_database_url, secrets_of, shown_database
from batchgen.database.failures import translate
from batchgen.database.revisions import HEAD, REVISIONS, VERSION_TABLE
from batchgen.errors import NoPermission, SchemaMismatch
from batchgen.storage.durable_files import exists

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

BUSY_TIMEOUT = 30.0  # seconds that an SQLite writer waits for another
CONNECT_TIMEOUT = 10  # seconds
TCP_USER_TIMEOUT = 15_000  # milliseconds until unacknowledged bytes end a connection
# If a server loses power after it received a query, no bytes are unacknowledged, so only keepalives
# detect that it does not answer.
KEEPALIVES = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}  # seconds
POOL_TIMEOUT = 30.0  # seconds a thread waits for a free connection

POSTGRESQL_OPTIONS = {
    "synchronous_commit": "on",
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    # the longest time that a stopped process keeps the locks of its transaction
    "idle_in_transaction_session_timeout": "10s",
}

# A rollback journal, because WAL can lose commits in the SQLite versions of many Pythons.
SQLITE_PRAGMAS = ("journal_mode=DELETE", "synchronous=FULL", "foreign_keys=ON")


class now_db(FunctionElement[float]):  # noqa: N801 (reads as SQL)
    """The time by the database's clock: seconds since the epoch, exact to 1 ms or better."""

    type = Double()
    inherit_cache = True


@compiles(now_db, "postgresql")
def _now_postgresql(element: now_db, compiler: SQLCompiler, **_: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@compiles(now_db, "sqlite")
def _now_sqlite(element: now_db, compiler: SQLCompiler, **_: Any) -> str:
    # the SQLite of many Pythons is too old for unixepoch('subsec')
    return "((julianday('now') - 2440587.5) * 86400.0)"


class Database:
    """A pool of connections to one database. Threads may share it; forked processes must not.

    It connects at the first transaction. Raises InvalidParameter for a URL that is neither SQLite
    nor PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        self._connect(url, mode="rw")

    @classmethod
    def create(cls, url: str) -> Database:
        """Return the database; create a missing SQLite file. Only migrations call this."""
        database = cls.__new__(cls)
        database._connect(url, mode="rwc")
        return database

    def _connect(self, url: str, *, mode: str) -> None:
        parsed = parse_database_url(url)
        #: The database's name for messages, without any password.
        self.shown = shown_database(parsed)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        #: The file of an SQLite database, None for PostgreSQL.
        self.file = Path(parsed.database or "") if self.is_sqlite else None
        self._secrets = secrets_of(parsed)
        self.engine = _sqlite(parsed, mode) if self.is_sqlite else _postgresql(parsed)

    def __repr__(self) -> str:
        return f"Database({self.shown!r})"

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open one transaction that commits at the end of the block.

        Raises DatabaseUnavailable or SchemaMismatch. After DatabaseUnavailable, unless it is a
        Conflict, it is unknown whether COMMIT succeeded.
        """
        with self._translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def begin_reading(self) -> Iterator[Connection]:
        """Open one transaction that only reads; on SQLite it does not block a writer."""
        with self._translated(), self.engine.connect() as connection:
            reading = connection.execution_options(batchgen_begin="BEGIN")
            with reading.begin():
                yield reading

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            translated = translate(error, database=self.shown, secrets=self._secrets)
            if translated is None:
                raise
            raise translated from error

    def now(self, connection: Connection) -> float:
        """Return the database's clock, seconds since the epoch."""
        return float(connection.execute(select(now_db())).scalar_one())

    def revision(self) -> str | None:
        """Return the schema revision of the database, None if it has no schema.

        Raises NoPermission if this user may not read the file.
        """
        if self.file is not None and not _may_read(self.file):
            return None
        with self.begin_reading() as connection:
            if not inspect(connection).has_table(VERSION_TABLE):
                return None
            found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
            return found.scalar()

    def check_schema(self) -> None:
        """Raise SchemaMismatch unless the database has exactly the schema of this version."""
        found = self.revision()
        if found == HEAD:
            return
        if found is None:
            raise SchemaMismatch(
                f"{self.shown} holds no batchgen schema (revision {HEAD} is needed). "
                "Create it with `batchgen db upgrade`."
            )
        if found in REVISIONS:
            raise SchemaMismatch(
                f"{self.shown} has schema {found}, this version needs {HEAD}. "
                "Run `batchgen db upgrade`."
            )
        raise SchemaMismatch(
            f"{self.shown} has schema {found}, which is newer than {HEAD}, the newest this "
            "version knows. Upgrade batchgen on this machine."
        )

    def close(self) -> None:
        """Close every idle connection."""
        self.engine.dispose()


def _may_read(file: Path) -> bool:
    """Return whether the file exists; raise NoPermission, where SQLite says "unable to open".

    The file must not be opened to find out. A process loses all of its POSIX locks on a file when
    it closes any descriptor of it, also those of SQLite transactions on other threads.
    """
    try:
        if not exists(file):
            return False
        if not os.access(file, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    except PermissionError as error:
        raise NoPermission.of(error) from error
    return True


def _sqlite(url: URL, mode: str) -> Engine:
    # mode=rw does not create a file: a mistyped path must fail, only migrations create one
    name = f"file:{quote(str(Path(url.database or '').absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            name, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in SQLITE_PRAGMAS:
                connection.execute(f"PRAGMA {pragma}").close()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_timeout=POOL_TIMEOUT,
        hide_parameters=True,
    )

    # The driver is in autocommit mode; SQLAlchemy's transaction begins here. IMMEDIATE takes the
    # write lock at once: of two transactions that read first, one could not write later.
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get("batchgen_begin", "BEGIN IMMEDIATE"))

    return engine


def _postgresql(url: URL) -> Engine:
    options = " ".join(f"-c {name}={value}" for name, value in POSTGRESQL_OPTIONS.items())
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=POOL_TIMEOUT,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args={
            "options": options,
            "connect_timeout": CONNECT_TIMEOUT,
            "tcp_user_timeout": TCP_USER_TIMEOUT,
            **KEEPALIVES,
            "application_name": "batchgen",
        },
    )
