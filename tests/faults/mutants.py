"""Do the fault tests notice? Each guard of the protocol is taken out, and some test must fail.

    python -m tests.faults.mutants [NAME …]

A mutant lives in a copy of the tree; the tree itself is never touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("batchgen", "cli", "workers", "kernels", "migrations", "tests", "pyproject.toml")
SOURCES = ("", "cli", "workers", "kernels", "migrations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One guard, taken out."""

    name: str
    file: str
    # what stands there once, and what stands there then
    guard: str
    instead: str
    # tests of which at least one must fail
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        name="epoch",
        file="batchgen/jobs/leases.py",
        guard="        shards.c.epoch == lease.epoch,\n        shard_is(ShardState.LEASED),\n",
        instead="        shard_is(ShardState.LEASED),\n",
        tests=(
            "tests/faults/test_process.py::test_04_who_wakes_beside_its_successor_is_fenced[postgresql]",
        ),
    ),
    Mutant(
        name="primary-key",
        file="migrations/batchgen_migrations/versions/r0001_baseline.py",
        guard='        sa.PrimaryKeyConstraint("shard_id", name="pk_parts"),\n',
        instead="",
        tests=("tests/faults/test_database.py::test_22_a_shard_has_one_part_whoever_writes_it",),
    ),
    Mutant(
        name="folder-fsync",
        file="batchgen/storage/storage.py",
        guard="            fsync(self.target.parent)\n",
        instead="            pass\n",
        tests=("tests/faults/test_power.py::test_13_what_sql_names_is_on_the_disk",),
    ),
    Mutant(
        name="re-read",
        file="batchgen/jobs/leases.py",
        guard="            if _is_registered(connection, lease, part):\n                return\n",
        instead="",
        tests=(
            "tests/faults/test_database.py::test_22_an_unknown_outcome_is_read_and_never_guessed",
        ),
    ),
    Mutant(
        name="idempotency",
        file="batchgen/batches/batches.py",
        guard="        known = _find(connection, tenant, batches.c.idem_key == key)\n",
        instead="        known = None\n",
        tests=(
            "tests/faults/test_gateway.py"
            "::test_72_a_create_that_is_stored_is_the_answer_to_its_repetition[postgresql]",
        ),
    ),
)


def main(names: list[str]) -> int:
    """Try the mutants, all or those named, and return how many went unnoticed."""
    unnoticed = 0
    for mutant in MUTANTS:
        if names and mutant.name not in names:
            continue
        noticed = is_noticed(mutant)
        unnoticed += not noticed
        print(f"{mutant.name:14} {'noticed' if noticed else 'NOT NOTICED'}", flush=True)  # noqa: T201
    return unnoticed


def is_noticed(mutant: Mutant) -> bool:
    """Run a mutant's tests, first without and then with it, and return whether it fails them."""
    with tempfile.TemporaryDirectory(prefix="batchgen-mutant-") as folder:
        tree = Path(folder)
        _copy(tree)
        if _fails(tree, mutant):
            raise SystemExit(f"The tests of {mutant.name} fail without it.")
        file = tree / mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutant.guard) != 1:
            raise SystemExit(f"{mutant.file} does not hold the guard of {mutant.name} once.")
        file.write_text(text.replace(mutant.guard, mutant.instead), encoding="utf-8")
        return _fails(tree, mutant)


def _copy(tree: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=ignored)
        else:
            shutil.copy(source, tree / name)


def _fails(tree: Path, mutant: Mutant) -> bool:
    path = os.pathsep.join(str(tree / source) for source in SOURCES)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "long or not long", *mutant.tests]
    ended = subprocess.run(
        command, cwd=tree, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False
    )
    if ended.returncode > 1:  # not a failing test, but no tests at all
        raise SystemExit(ended.stdout.decode() + ended.stderr.decode())
    return ended.returncode == 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
