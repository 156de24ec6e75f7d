from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

import batchgen_migrations
from batchgen.core.finish_reasons import UNCOUNTED, FinishReasons
from batchgen.core.kv_totals import UNMEASURED
from batchgen.database import batch_tables, tenant_tables, webhook_tables
from batchgen.database.database import Database
from batchgen.database.revisions import HEAD, REVISIONS, VERSION_TABLE
from batchgen.database.tables import metadata
from batchgen.errors import DatabaseUnavailable, SchemaMismatch, StoreMismatch
from batchgen.jobs.store import Store
from batchgen.repair.invariants import check_tables
from batchgen.service import Service
from batchgen.settings import Settings
from batchgen.storage.store_id import read_store_id
from batchgen_migrations import check, current, downgrade, upgrade
from batchgen_migrations.runner import _migrating
from tests.support.jobs import new_job, part_of

# Their tables are in `metadata` once these modules are imported.
assert batch_tables and tenant_tables and webhook_tables


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a schema, on each of the two."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/home/batchgen.db"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


def tables_in(url: str) -> set[str]:
    with closing(Database(url)) as database, database.begin_reading() as connection:
        return set(inspect(connection).get_table_names())


def schema_of(engine: Engine) -> dict[str, Any]:
    """Return everything a database says of batchgen's tables, in a form to compare."""
    found = inspect(engine)
    return {
        table: {
            "columns": [
                (c["name"], str(c["type"]), c["nullable"], c["default"])
                for c in found.get_columns(table)
            ],
            "key": found.get_pk_constraint(table)["constrained_columns"],
            "checks": {c["name"]: c["sqltext"] for c in found.get_check_constraints(table)},
            "uniques": {c["name"]: c["column_names"] for c in found.get_unique_constraints(table)},
            "references": {
                c["name"]: (c["constrained_columns"], c["referred_table"], c["referred_columns"])
                for c in found.get_foreign_keys(table)
            },
            "indexes": {
                i["name"]: (i["column_names"], i["unique"], predicate(i.get("dialect_options")))
                for i in found.get_indexes(table)
            },
        }
        for table in metadata.tables
        if found.has_table(table)
    }


def predicate(options: Any) -> str:
    return " ".join(str(value) for key, value in (options or {}).items() if "where" in key)


def test_the_code_knows_every_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(files("batchgen_migrations")))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [HEAD]
    walked = [script.revision for script in scripts.walk_revisions()]
    assert walked == list(reversed(REVISIONS))


def test_public_names() -> None:
    assert batchgen_migrations.__all__ == ["check", "current", "downgrade", "upgrade"]


def test_up_down_and_up_again(empty_url: str) -> None:
    assert current(empty_url) is None
    assert upgrade(empty_url) == HEAD
    assert current(empty_url) == HEAD
    assert tables_in(empty_url) == {*metadata.tables, VERSION_TABLE}
    downgrade(empty_url, "base")
    assert current(empty_url) is None
    assert tables_in(empty_url) == {VERSION_TABLE}
    upgrade(empty_url)
    with closing(Database(empty_url)) as database:
        database.check_schema()


def test_migrations_and_models_agree(empty_url: str) -> None:
    upgrade(empty_url)
    assert check(empty_url) == []


def test_check_names_what_differs(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database, database.begin() as connection:
        connection.execute(text("ALTER TABLE jobs DROP COLUMN key_id"))
        connection.execute(text("DROP INDEX shard_due"))
    found = check(postgres_url)
    assert len(found) == 2
    assert any("add_column" in difference for difference in found)
    assert any("shard_due" in difference for difference in found)


def test_nothing_differs_down_to_the_constraints(
    empty_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The migrations make what the models would make, CHECKs and predicates included."""
    upgrade(empty_url)
    migrated = Database(empty_url)
    with closing(migrated), closing(fresh_database(migrated, request, tmp_path)) as modelled:
        with modelled.begin() as connection:
            metadata.create_all(connection)
        assert schema_of(migrated.engine) == schema_of(modelled.engine)


def fresh_database(like: Database, request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if like.is_sqlite:
        return Database.create(f"sqlite:///{tmp_path}/modelled.db")
    server = request.getfixturevalue("postgres_server")
    url = server.create()
    request.addfinalizer(lambda: server.drop(url))
    return Database(url)


def test_again_changes_nothing(empty_url: str) -> None:
    upgrade(empty_url)
    with closing(Database(empty_url)) as database:
        store = Store(database)
        job = store.jobs.submit(new_job())
        assert upgrade(empty_url) == HEAD
        assert store.jobs.by_id(job.id) == job


def test_two_at_once_are_one(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(upgrade, [empty_url] * 4)) == {HEAD}
    assert check(empty_url) == []


def test_a_newer_schema_is_left_alone(empty_url: str) -> None:
    upgrade(empty_url)
    with closing(Database(empty_url)) as database, database.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0042'"))  # noqa: S608
    with pytest.raises(SchemaMismatch, match=f"0042.*{HEAD}"):
        upgrade(empty_url)
    assert current(empty_url) == "0042"


@pytest.fixture
def broken_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the migration fail after most of its tables."""
    create = Operations.create_table

    def create_table(self: Any, name: str, *columns: Any, **options: Any) -> Any:
        if name == "workers":
            self.execute("SELECT nonsense FROM nowhere")
        return create(self, name, *columns, **options)

    monkeypatch.setattr(Operations, "create_table", create_table)


@pytest.mark.usefixtures("broken_baseline")
def test_half_way_is_not_at_all(empty_url: str) -> None:
    with pytest.raises((SchemaMismatch, SQLAlchemyError)):
        upgrade(empty_url)
    assert current(empty_url) is None
    assert tables_in(empty_url) == set()


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, only some notes\n" * 20)
    before = path.read_bytes()
    with pytest.raises(DatabaseUnavailable, match="Nothing was written"):
        upgrade(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_asking_makes_no_file(tmp_path: Path) -> None:
    assert current(f"sqlite:///{tmp_path}/absent.db") is None
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_the_first_schema_keeps_what_it_holds(empty_url: str) -> None:
    upgrade_to(empty_url, "0001")
    with closing(Database(empty_url)) as database:
        with database.begin() as connection:
            for statement in JOB_OF_THE_FIRST_SCHEMA:
                connection.execute(text(statement))
        with pytest.raises(SchemaMismatch, match="batchgen db upgrade"):
            database.check_schema()
    assert upgrade(empty_url) == HEAD
    assert check(empty_url) == []
    with closing(Database(empty_url)) as database:
        store = Store(database)
        progress = store.jobs.progress(1)
        assert (progress.committed, progress.rows_ok, progress.rows_err) == (1, 7, 1)
        assert (progress.prompt_tokens, progress.completion_tokens) == (80, 40)
        assert (progress.cached_tokens, progress.kv) == (0, UNMEASURED)
        assert progress.finish_reasons == UNCOUNTED  # rather than seven that were not cut
        (old, ready) = store.finalization.segments(1)
        assert (old.part and old.part.path, ready.part) == ("parts/old", None)
        lease = store.leases.claim(2, owner="host/1", ttl=60.0)
        assert lease is not None
        store.leases.commit(lease, part_of(lease))
        # the old part, which nobody measured, leaves the means alone
        kv = store.jobs.progress(1).kv
        assert (kv.rows, kv.utilisation) == (8, part_of(lease).kv.utilisation)
        assert store.jobs.progress(1).finish_reasons == FinishReasons(stop=7, length=1)
        assert check_tables(store) == []


def test_a_home_of_the_first_schema_gets_its_id_unasked(tmp_path: Path) -> None:
    """From another home the old database is upgraded, and its jobs stay where they are."""
    home, other = tmp_path / "home", tmp_path / "other"
    url = f"sqlite:///{home}/batchgen.db"
    upgrade_to(url, "0001")
    with closing(Database(url)) as database, database.begin() as connection:
        for statement in JOB_OF_THE_FIRST_SCHEMA:
            connection.execute(text(statement))
    (home / "inputs").mkdir()
    (home / "inputs" / "in").touch()
    ours = Service(Settings(home=home))
    theirs = Service(Settings(home=other, database_url=url))
    with closing(ours), closing(theirs):
        assert ours.status("0123456789abcdef0123456789abcdef").state == "running"
        with pytest.raises(StoreMismatch, match="no file of any job"):
            theirs.fsck()
        assert ours.storage.check()
        with pytest.raises(StoreMismatch, match=str(read_store_id(home))):
            theirs.fsck()


def test_the_first_schema_comes_back_as_it_was(empty_url: str) -> None:
    upgrade_to(empty_url, "0001")
    with closing(Database(empty_url)) as database:
        before = schema_of(database.engine)
    upgrade(empty_url)
    downgrade(empty_url, "0001")
    with closing(Database(empty_url)) as database:
        assert schema_of(database.engine) == before
    assert current(empty_url) == "0001"


def upgrade_to(url: str, revision: str) -> None:
    """Bring an empty database to an earlier schema, as the version of that time did."""
    with closing(Database.create(url)) as database:
        if database.file is not None:
            database.file.parent.mkdir(parents=True, exist_ok=True)
        with _migrating(database) as config:
            command.upgrade(config, revision)


#: A running job of 16 rows in two shards; the first is committed, one of its rows failed.
JOB_OF_THE_FIRST_SCHEMA = (
    "INSERT INTO inputs VALUES ('in', 'ready', 100, 16, 'jsonl', 1.0)",
    "INSERT INTO jobs (id, public_id, tenant_id, idem_key, input_sha256, model, model_sha256, "
    "params, state, n_rows, n_positions, created_at) VALUES "
    "(1, '0123456789abcdef0123456789abcdef', 'local', 'k', 'in', 'tiny', 'm', '{}', 'running', "
    "16, 16, 1.0)",
    "INSERT INTO shards (id, job_id, pos_start, pos_end, n_rows, state, epoch, attempts, "
    "rows_done) VALUES (1, 1, 0, 8, 8, 'committed', 1, 1, 8), (2, 1, 8, 16, 8, 'ready', 0, 0, 0)",
    "INSERT INTO parts VALUES (1, 1, 1, 'parts/old', 8, 7, 1, 1000, 'sum', 80, 40, 2.0)",
)
