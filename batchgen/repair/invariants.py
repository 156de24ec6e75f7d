"""The invariants: rules that always hold for the database and for the files that it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from batchgen.jobs.store import Store
from batchgen.repair.job_files import check_datasets, check_epochs, check_inputs, check_parts
from batchgen.storage.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One violation of an invariant."""

    # I1 to I18
    invariant: str
    # the rule in words
    rule: str
    # the values that violate it
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.rule} ({self.detail})"

    @property
    def remedy(self) -> str:
        """The advice for the operator."""
        return REMEDIES.get(self.invariant, BACKUP)


#: The rules, by name.
RULES: Final = {
    "I1": "a shard has one part",
    "I2": "a part belongs to a committed shard, under the epoch that committed it",
    "I3": "a committed shard has a part",
    "I4": "the leaf shards of a job tile its positions",
    "I5": "the parts of a completed job hold every row",
    "I6": "every part lies on disk as it was registered",
    "I7": "no two parts have one path",
    "I8": "a leased shard, and no other, has an owner and an expiry",
    "I9": "the epoch of a shard only grows",
    "I10": "no part appears once its job has left running and stopping",
    "I11": "the children of a split shard tile it",
    "I12": "a dataset holds every row of its input once, under its own id",
    "I13": "the totals of a job are the sums of its parts",
    "I14": "a removed job is gone",
    "I15": "a batch and its job have one id, one tenant and one input",
    "I16": "a batch is refused, cancelled, or has a job, and only one of them",
    "I17": "an output file belongs to a batch with a job, an uploaded file to an input",
    "I18": "the input of a file or a batch lies on disk",
}

BACKUP: Final = (
    "The database was changed by hand or is damaged: stop every process, restore a backup of it, "
    "and run `batchgen fsck --adopt`."
)

#: The advice for some of them; for the others, restore a backup.
REMEDIES: Final = {
    "I6": "Restore the file from a backup. Where its job still runs, `batchgen fsck --adopt` has "
    "its rows computed again; where it has ended, the dataset is whole as long as `batchgen "
    "verify` says so.",
    "I9": "The database is older than the files: run `batchgen fsck --adopt`, best before any "
    "worker starts.",
    "I18": "Restore the file from a backup of the home, or upload it again.",
    "I12": "Restore the dataset or the stored input from a backup, or submit the job again.",
}

#: Each query returns one row per violation of its rule, on PostgreSQL and on SQLite.
QUERIES: Final = {
    "I1": "SELECT shard_id, count(*) AS parts FROM parts GROUP BY shard_id HAVING count(*) > 1",
    "I2": """
        SELECT p.shard_id, p.epoch AS part_epoch, s.epoch AS shard_epoch, s.state
        FROM parts p LEFT JOIN shards s ON s.id = p.shard_id
        WHERE s.id IS NULL OR s.state <> 'committed' OR s.epoch <> p.epoch
    """,
    "I3": """
        SELECT s.id AS shard_id FROM shards s LEFT JOIN parts p ON p.shard_id = s.id
        WHERE s.state = 'committed' AND p.shard_id IS NULL
    """,
    "I4": """
        WITH leaves AS (
            SELECT job_id, pos_start, pos_end,
                   coalesce(lag(pos_end) OVER positions, 0) AS expected_start,
                   lead(pos_start) OVER positions AS following
            FROM shards WHERE state <> 'split'
            WINDOW positions AS (PARTITION BY job_id ORDER BY pos_start))
        SELECT j.public_id AS job, l.expected_start, l.pos_start, l.pos_end, j.n_positions
        FROM jobs j LEFT JOIN leaves l ON l.job_id = j.id
        WHERE (l.job_id IS NULL AND j.n_positions > 0) OR l.pos_start <> l.expected_start
           OR (l.following IS NULL AND l.pos_end <> j.n_positions)
    """,
    "I5": """
        SELECT j.public_id AS job, j.n_rows, coalesce(sum(p.n_rows), 0) AS part_rows,
               count(s.id) - count(p.shard_id) AS shards_without_part
        FROM jobs j
        LEFT JOIN shards s ON s.job_id = j.id AND s.state <> 'split'
        LEFT JOIN parts p ON p.shard_id = s.id AND s.state = 'committed'
        WHERE j.state = 'completed' GROUP BY j.public_id, j.n_rows
        HAVING coalesce(sum(p.n_rows), 0) <> j.n_rows OR count(s.id) <> count(p.shard_id)
    """,
    "I7": "SELECT path, count(*) AS parts FROM parts GROUP BY path HAVING count(*) > 1",
    "I8": """
        SELECT id AS shard_id, state, lease_owner, lease_expires_at FROM shards
        WHERE (state = 'leased' AND (lease_owner IS NULL OR lease_expires_at IS NULL))
           OR (state <> 'leased' AND (lease_owner IS NOT NULL OR lease_expires_at IS NOT NULL))
    """,
    "I9": """
        SELECT s.id AS shard_id, s.epoch, c.epoch AS checkpoint_epoch, p.epoch AS part_epoch
        FROM shards s
        LEFT JOIN checkpoints c ON c.shard_id = s.id LEFT JOIN parts p ON p.shard_id = s.id
        WHERE c.epoch > s.epoch OR p.epoch > s.epoch OR s.attempts > s.epoch
    """,
    "I10": """
        SELECT p.shard_id, p.committed_at, j.finalizing_at, j.ended_at, j.state
        FROM parts p JOIN jobs j ON j.id = p.job_id
        WHERE p.committed_at > coalesce(j.finalizing_at, j.ended_at) OR j.state = 'queued'
    """,
    "I11": """
        WITH children AS (
            SELECT parent_id, pos_start, pos_end,
                   lag(pos_end) OVER positions AS preceding,
                   lead(pos_start) OVER positions AS following
            FROM shards WHERE parent_id IS NOT NULL
            WINDOW positions AS (PARTITION BY parent_id ORDER BY pos_start))
        SELECT s.id AS shard_id, c.pos_start, c.pos_end, c.preceding
        FROM shards s LEFT JOIN children c ON c.parent_id = s.id
        WHERE s.state = 'split' AND (c.parent_id IS NULL
           OR c.pos_start <> coalesce(c.preceding, s.pos_start)
           OR (c.following IS NULL AND c.pos_end <> s.pos_end))
    """,
    "I13": """
        SELECT j.public_id AS job, t.parts, count(p.shard_id) AS found, t.n_rows, t.n_ok, t.n_err
        FROM jobs j LEFT JOIN totals t ON t.job_id = j.id LEFT JOIN parts p ON p.job_id = j.id
        GROUP BY j.public_id, t.job_id, t.parts, t.n_rows, t.n_ok, t.n_err, t.prompt_tokens,
            t.completion_tokens, t.cached_tokens, t.preemptions, t.copies, t.kv_rows,
            t.kv_utilisation, t.sharing_saving, t.n_stop, t.n_length
        HAVING t.job_id IS NULL OR t.parts <> count(p.shard_id)
            OR t.n_rows <> coalesce(sum(p.n_rows), 0) OR t.n_ok <> coalesce(sum(p.n_ok), 0)
            OR t.n_err <> coalesce(sum(p.n_err), 0)
            OR t.n_stop <> coalesce(sum(p.n_stop), 0)
            OR t.n_length <> coalesce(sum(p.n_length), 0)
            OR t.prompt_tokens <> coalesce(sum(p.prompt_tokens), 0)
            OR t.completion_tokens <> coalesce(sum(p.completion_tokens), 0)
            OR t.cached_tokens <> coalesce(sum(p.cached_tokens), 0)
            OR t.preemptions <> coalesce(sum(p.preemptions), 0)
            OR t.copies <> coalesce(sum(p.copies), 0)
            OR t.kv_rows <> coalesce(
                sum(CASE WHEN p.kv_utilisation IS NOT NULL THEN p.n_ok END), 0)
            OR abs(t.kv_utilisation - coalesce(sum(p.kv_utilisation * p.n_ok), 0))
                > 1e-9 * (1 + t.n_rows)
            OR abs(t.sharing_saving - coalesce(sum(p.sharing_saving * p.n_ok), 0))
                > 1e-9 * (1 + t.n_rows)
    """,
    "I14": """
        SELECT r.public_id AS job, j.state FROM removals r JOIN jobs j ON j.public_id = r.public_id
    """,
    "I15": """
        SELECT b.id AS batch, j.public_id AS job FROM batches b
        LEFT JOIN jobs j ON j.id = b.job_id
        WHERE b.job_id IS NOT NULL AND (j.id IS NULL OR j.public_id <> b.id
           OR j.tenant_id <> b.tenant_id OR b.input_sha256 IS NULL
           OR j.input_sha256 <> b.input_sha256)
    """,
    "I16": """
        SELECT id AS batch, job_id, failed_at, cancelled_at FROM batches
        WHERE (CASE WHEN job_id IS NULL THEN 0 ELSE 1 END)
            + (CASE WHEN failed_at IS NULL THEN 0 ELSE 1 END)
            + (CASE WHEN cancelled_at IS NULL THEN 0 ELSE 1 END)
            + (CASE WHEN ended IS NULL THEN 0 ELSE 1 END) > 1
           OR (input_sha256 IS NULL AND ended IS NULL)
    """,
    "I17": """
        SELECT f.id AS file, f.purpose, f.batch_id FROM files f
        LEFT JOIN batches b ON b.id = f.batch_id
        WHERE (f.input_sha256 IS NULL AND (b.job_id IS NULL
               OR f.id NOT IN (b.output_file_id, b.error_file_id) OR f.tenant_id <> b.tenant_id))
           OR (f.input_sha256 IS NOT NULL AND (f.batch_id IS NOT NULL OR f.bytes IS NULL))
    """,
}


def check_invariants(store: Store, storage: Storage) -> list[Violation]:
    """Return all violations of invariants; [] if there is none.

    Safe while jobs run. Every part and every dataset is read completely. Raises StoreMismatch if
    the storage does not belong to the database: then neither can be judged.
    """
    storage.check()
    found = check_tables(store)
    found += [_violation("I9", str(fallen)) for fallen in check_epochs(store, storage)]
    found += [_violation("I6", detail) for detail in check_parts(store, storage)]
    found += [_violation("I12", detail) for detail in check_datasets(store, storage)]
    found += [_violation("I18", detail) for detail in check_inputs(store, storage)]
    return found


def check_tables(store: Store) -> list[Violation]:
    """Return the violations that can be found without reading files."""
    with store.database.begin_reading() as connection:
        return list(_broken(connection))


def _broken(connection: Connection) -> Iterator[Violation]:
    for name, query in QUERIES.items():
        for row in connection.execute(text(query)):
            yield _violation(name, _shown(row))


def _shown(row: Row[Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row._mapping.items())


def _violation(name: str, detail: str) -> Violation:
    return Violation(invariant=name, rule=RULES[name], detail=detail)
