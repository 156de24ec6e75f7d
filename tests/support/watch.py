"""Triggers that write down what must never happen, whatever the tables look like afterwards.

The invariants look at rows as they are; that an epoch fell and rose again, or that a part came
after its job had left running and stopping, is seen only while it happens (I9, I10).
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from batchgen.database.database import Database

FELL = "NEW.epoch < OLD.epoch OR NEW.attempts < OLD.attempts"
LATE = "(SELECT state FROM jobs WHERE id = NEW.job_id) NOT IN ('running', 'stopping')"
RECORD = "INSERT INTO seen SELECT '{what} of shard ' || {shard}"

#: {table and event: (when it is wrong, what is written down)}
WATCHED = {
    "UPDATE ON shards": (FELL, RECORD.format(what="I9: epoch or attempts", shard="OLD.id")),
    "INSERT ON parts": (LATE, RECORD.format(what="I10: late part", shard="NEW.shard_id")),
}


def watch(database: Database) -> None:
    """Write down from now on what breaks I9 or I10; once a database."""
    with database.begin() as connection:
        if _is_watched(connection):
            return
        connection.execute(text("CREATE TABLE seen (what TEXT NOT NULL)"))
        for number, (event, (wrong, record)) in enumerate(WATCHED.items()):
            for statement in _trigger(f"watch_{number}", event, wrong, record, database):
                connection.execute(text(statement))


def seen(database: Database) -> list[str]:
    """Return what was written down."""
    with database.begin_reading() as connection:
        if not _is_watched(connection):
            return []
        return list(connection.execute(text("SELECT what FROM seen")).scalars())


def _is_watched(connection: Connection) -> bool:
    return connection.dialect.has_table(connection, "seen")


def _trigger(name: str, event: str, wrong: str, record: str, database: Database) -> list[str]:
    if database.is_sqlite:
        return [f"CREATE TRIGGER {name} AFTER {event} WHEN {wrong} BEGIN {record}; END"]
    body = f"BEGIN IF {wrong} THEN {record}; END IF; RETURN NULL; END"
    return [
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$",
        f"CREATE TRIGGER {name} AFTER {event} FOR EACH ROW EXECUTE FUNCTION {name}()",
    ]
