from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from batchgen.database import database as database_module
from batchgen.database.database import Database
from batchgen.database.failures import Conflict
from batchgen.database.revisions import HEAD
from batchgen.errors import DatabaseUnavailable, InvalidParameter, SchemaMismatch
from batchgen.jobs.store import Store
from tests.support.jobs import database_now, new_job


def setting(database: Database, query: str) -> str:
    with database.begin_reading() as connection:
        return str(connection.execute(text(query)).scalar_one())


class TestClock:
    def test_is_seconds_since_the_epoch(self, database: Database) -> None:
        assert abs(database_now(database) - time.time()) < 60.0

    def test_has_parts_of_a_second(self, database: Database) -> None:
        assert any(database_now(database) % 1.0 for _ in range(5))


class TestTransactions:
    def test_commit_at_the_end(self, database: Database) -> None:
        with database.begin() as connection:
            connection.execute(text("DELETE FROM workers"))
            connection.execute(
                text("INSERT INTO workers VALUES ('w', 'm', 1, 'cpu', 1, '1', '{}', 0, 0)")
            )
        assert setting(database, "SELECT count(*) FROM workers") == "1"

    def test_roll_back_on_any_error(self, database: Database) -> None:
        with pytest.raises(ZeroDivisionError), database.begin() as connection:
            connection.execute(
                text("INSERT INTO workers VALUES ('w', 'm', 1, 'cpu', 1, '1', '{}', 0, 0)")
            )
            raise ZeroDivisionError
        assert setting(database, "SELECT count(*) FROM workers") == "0"

    def test_readers_wait_for_no_writer(self, database: Database) -> None:
        with database.begin() as writer:
            writer.execute(text("DELETE FROM workers"))
            assert setting(database, "SELECT count(*) FROM workers") == "0"


WRITES = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
else:
    print("it writes")
"""


class TestSqlite:
    def test_a_look_at_the_schema_takes_no_lock_from_a_transaction(self, sqlite_url: str) -> None:
        # A process that closes any descriptor of the file loses the locks of all its connections.
        with closing(Database(sqlite_url)) as database, database.begin() as connection:
            connection.execute(text("DELETE FROM workers"))
            database.check_schema()
            assert database.file is not None
            tries = [sys.executable, "-c", WRITES, str(database.file)]
            said = subprocess.run(tries, capture_output=True, check=True, text=True).stdout
            assert said.strip() == "database is locked"

    @pytest.mark.parametrize(
        ("pragma", "value"),
        [("journal_mode", "delete"), ("synchronous", "2"), ("foreign_keys", "1")],
    )
    def test_is_as_durable_as_it_can_be(self, sqlite_url: str, pragma: str, value: str) -> None:
        database = Database(sqlite_url)
        assert setting(database, f"PRAGMA {pragma}") == value
        database.close()

    def test_writers_take_turns_from_the_first_statement(self, sqlite_url: str) -> None:
        database = Database(sqlite_url)
        started = threading.Event()

        def second() -> None:
            started.set()
            with database.begin() as connection:
                order.append(str(connection.execute(text("SELECT 'second'")).scalar_one()))

        order: list[str] = []
        thread = threading.Thread(target=second)
        with database.begin():
            thread.start()
            started.wait()
            thread.join(0.2)
            order.append("first")
        thread.join()
        database.close()
        assert order == ["first", "second"]

    def test_held_too_long_is_a_conflict(
        self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "BUSY_TIMEOUT", 0.05)
        database = Database(sqlite_url)
        with (
            database.begin(),
            pytest.raises(Conflict, match="busy"),
            database.begin(),
        ):
            pass
        database.close()

    def test_missing_file_is_not_made(self, tmp_path: Path) -> None:
        missing = tmp_path / "missing.db"
        database = Database(f"sqlite:///{missing}")
        with pytest.raises(SchemaMismatch, match="db upgrade"):
            database.check_schema()
        with pytest.raises(DatabaseUnavailable):
            Store(database).jobs.list()
        assert not missing.exists()

    @pytest.mark.parametrize(
        "damage", [b"not a database at all, yet long enough" * 10, b"\0" * 5000]
    )
    def test_damaged_file_is_left_as_it_is(self, tmp_path: Path, damage: bytes) -> None:
        path = tmp_path / "damaged.db"
        path.write_bytes(damage)
        database = Database(f"sqlite:///{path}")
        with pytest.raises(DatabaseUnavailable, match=r"damaged\.db .*Nothing was written"):
            database.check_schema()
        database.close()
        assert path.read_bytes() == damage

    def test_truncated_file_is_refused(self, sqlite_url: str) -> None:
        database = Database(sqlite_url)
        assert database.file is not None
        whole = database.file.read_bytes()
        database.file.write_bytes(whole[:5000])
        with pytest.raises(DatabaseUnavailable, match="damaged"):
            database.check_schema()
        database.close()
        assert database.file.read_bytes() == whole[:5000]

    def test_path_may_hold_any_character(self, tmp_path: Path, sqlite_template: Path) -> None:
        odd = tmp_path / "50% off?#1.db"
        odd.write_bytes(sqlite_template.read_bytes())
        database = Database(f"sqlite:///{str(odd).replace('%', '%25').replace('?', '%3F')}")
        assert database.file == odd
        database.check_schema()
        database.close()


class TestPostgresql:
    def test_a_server_that_lost_its_power_is_not_waited_for(
        self, emptied_postgres_store: Store
    ) -> None:
        with emptied_postgres_store.database.begin_reading() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            asked = driver.info.get_parameters()
        assert int(asked["keepalives_idle"]) <= 15
        assert int(asked["keepalives_interval"]) * int(asked["keepalives_count"]) <= 15
        assert int(asked["tcp_user_timeout"]) <= 15_000

    def test_session_settings(self, emptied_postgres_url: str) -> None:
        database = Database(emptied_postgres_url)
        for name, value in database_module.POSTGRESQL_OPTIONS.items():
            assert setting(database, f"SHOW {name}") == value
        database.close()

    def test_unreachable_server(self, tmp_path: Path) -> None:
        database = Database(f"postgresql://bob:hunter2@/batch?host={tmp_path}")
        with pytest.raises(DatabaseUnavailable, match="BATCHGEN_DATABASE_URL") as caught:
            database.check_schema()
        assert "hunter2" not in caught.value.message


class TestSchema:
    def test_of_this_version_is_accepted(self, database: Database) -> None:
        database.check_schema()
        assert database.revision() == HEAD

    def test_newer_names_both_versions_and_writes_nothing(self, database_url: str) -> None:
        database = Database(database_url)
        set_revision(database, "0042")
        try:
            with pytest.raises(SchemaMismatch, match=rf"0042.*{HEAD}.*Upgrade batchgen"):
                database.check_schema()
            assert database.revision() == "0042"
        finally:
            set_revision(database, HEAD)
            database.close()

    def test_older_says_how_to_upgrade(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "REVISIONS", (HEAD, "0099"))
        monkeypatch.setattr(database_module, "HEAD", "0099")
        with pytest.raises(SchemaMismatch, match=rf"{HEAD}.*0099.*batchgen db upgrade"):
            database.check_schema()

    def test_missing_says_how_to_make_it(self, empty_postgres_url: str) -> None:
        database = Database(empty_postgres_url)
        with pytest.raises(SchemaMismatch, match="batchgen db upgrade"):
            database.check_schema()
        with pytest.raises(SchemaMismatch, match="batchgen db upgrade"):
            Store(database).jobs.submit(new_job())
        database.close()

    def test_missing_in_an_empty_file(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty.db"
        empty.touch()
        database = Database(f"sqlite:///{empty}")
        with pytest.raises(SchemaMismatch, match="batchgen db upgrade"):
            database.check_schema()
        with pytest.raises(SchemaMismatch, match="batchgen db upgrade"):
            Store(database).jobs.submit(new_job())
        database.close()
        assert empty.stat().st_size == 0


def set_revision(database: Database, revision: str) -> None:
    with database.begin() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num = :r").bindparams(r=revision)
        )


class TestUrl:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "batchgen.db",
            "sqlite://",
            "sqlite:///:memory:",
            "mysql://bob:hunter2@db/batch",
            "postgresql://bob:hunter2@db:port/batch",
            "://bob:hunter2@db",
            "postgresql://bob:a@hunter2@db/batch",
            "postgresql://bob:a@b/hunter2@db/batch",
            "postgresql://bob:hunter2@/batch?host=a,b&port=1,2,3",
        ],
    )
    def test_of_no_use_is_refused_without_being_quoted(self, url: str) -> None:
        with pytest.raises(InvalidParameter) as caught:
            Database(url)
        assert caught.value.param == "database_url"
        assert "hunter2" not in caught.value.message
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
    def test_password_is_never_shown(self, scheme: str) -> None:
        database = Database(f"{scheme}://bob:hunter2@db.example:5433/batch?password=hunter2")
        assert database.shown == "postgresql://db.example:5433/batch"
        assert "hunter2" not in repr(database) + repr(Store(database)) + repr(database.engine)
        assert database.engine.dialect.driver == "psycopg"

    def test_of_sqlite_shows_the_file(self, tmp_path: Path) -> None:
        assert Database(f"sqlite:///{tmp_path}/a.db").shown == f"{tmp_path}/a.db"


def test_the_journal_mode_of_an_existing_file_is_put_right(sqlite_url: str) -> None:
    """A file that someone set to WAL comes back to a journal that loses nothing."""
    database = Database(sqlite_url)
    with sqlite3.connect(str(database.file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").close()
    connection.close()
    assert setting(database, "PRAGMA journal_mode") == "delete"
    database.close()
