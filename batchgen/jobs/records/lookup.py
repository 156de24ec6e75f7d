"""Find jobs of one tenant by id, by a beginning or an end of it, and by name; each by an index.

id          0193f6d2a8d47c1e9b1f6a3c5e7d9b02
beginning   0193f6d2…    a range of ids
end         …5e7d9b02    a range of reversed ids, 20b9d7e5…
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Column, Connection, Row, Select, and_, select, tuple_

from batchgen.core.states import JobState
from batchgen.database.tables import jobs
from batchgen.errors import JobNotFound
from batchgen.jobs.records.job_records import JobRecord

PUBLIC_ID_LENGTH: Final = 32
MOST: Final = (1 << 63) - 1  # above every internal id
NAMES_SEEN: Final = 300  # newest jobs whose names are suggested
AFTER_DIGITS: Final = "g"  # sorts after each hexadecimal digit

_REFERENCE: Final = re.compile(r"[0-9a-f]{4,32}")


def by_reference(connection: Connection, ref: str, tenant: str) -> JobRecord:
    """Return the job with this public id, or a unique beginning or end of it (4 digits up).

    Raises JobNotFound.
    """
    if _REFERENCE.fullmatch(ref) is None:
        raise JobNotFound(f"{ref!r} is not a job id. See `batchgen ls`.")
    found = _matches(connection, ref, tenant)
    if not found:
        raise JobNotFound(f"No job {ref}. See `batchgen ls`.")
    if len(found) > 1:
        raise JobNotFound(f"{ref} names more than one job. Write more of the id.")
    return JobRecord.from_row(found[0])


def by_name(
    connection: Connection, name: str, tenant: str, *, limit: int | None
) -> list[JobRecord]:
    """Return the jobs with this name, newest first, at most `limit`."""
    named = _of(tenant).where(jobs.c.name == name).order_by(jobs.c.id.desc()).limit(limit)
    return [JobRecord.from_row(row) for row in connection.execute(named)]


def newest(
    connection: Connection,
    tenant: str,
    *,
    states: Collection[JobState] | None,
    name: str | None,
    limit: int,
    before_id: int | None,
) -> list[JobRecord]:
    """Return jobs, newest first, of some states and of one name, or of all."""
    before = MOST if before_id is None else before_id
    order = [jobs.c.id.desc()]
    if states is None:
        chosen = jobs.c.id < before
    elif len(states) == 1 and name is None:
        # A range of one state, not an equality: ordered by the state as well, it is read from the
        # index of states. PostgreSQL would otherwise read all jobs backwards until it finds enough.
        (state,) = states
        chosen = and_(jobs.c.state >= state, tuple_(jobs.c.state, jobs.c.id) < (state, before))
        order = [jobs.c.state.desc(), *order]
    else:
        chosen = and_(jobs.c.state.in_(states), jobs.c.id < before)
    query = _of(tenant).where(chosen)
    if name is not None:
        query = query.where(jobs.c.name == name)
    found = connection.execute(query.order_by(*order).limit(limit))
    return [JobRecord.from_row(row) for row in found]


def newest_names(connection: Connection, tenant: str) -> list[str]:
    """Return the names of the newest jobs, each once."""
    newest = select(jobs.c.name).where(jobs.c.tenant_id == tenant).order_by(jobs.c.id.desc())
    found = connection.execute(newest.limit(NAMES_SEEN)).scalars()
    return list(dict.fromkeys(name for name in found if name))


def needing_model(connection: Connection, model: str) -> JobRecord | None:
    """Return a job, of any tenant, that needs a model because it has not ended."""
    using = select(jobs).where(jobs.c.model == model, jobs.c.ended_at.is_(None)).limit(1)
    row = connection.execute(using).one_or_none()
    return None if row is None else JobRecord.from_row(row)


def _of(tenant: str) -> Select[Any]:
    return select(jobs).where(jobs.c.tenant_id == tenant)


def _matches(connection: Connection, ref: str, tenant: str) -> Sequence[Row[Any]]:
    """Return the rows that a reference means; two of them are enough to call it ambiguous."""
    if len(ref) == PUBLIC_ID_LENGTH:
        return connection.execute(_of(tenant).where(jobs.c.public_id == ref)).all()
    found: dict[int, Row[Any]] = {}
    # One query for each index: with OR, neither database is sure to use both.
    for column, prefix in ((jobs.c.public_id, ref), (jobs.c.reversed_id, ref[::-1])):
        matching = _of(tenant).where(_begins(column, prefix)).limit(2)
        found |= {row.id: row for row in connection.execute(matching)}
    return list(found.values())


def _begins(column: Column[str], prefix: str) -> Any:
    return and_(column >= prefix, column < prefix + AFTER_DIGITS)
