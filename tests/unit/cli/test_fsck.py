from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from batchgen.core.states import JobState
from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support.homes import answer_some, finish
from tests.support.jobs import forget_part, set_job
from tests.unit.cli.conftest import Command


@pytest.fixture
def running(batchgen: Command, service: Service) -> JobRecord:
    """A job of two shards, one of them committed."""
    job = service.job(batchgen.submit(rows=40))
    answer_some(service, job)
    return job


@pytest.fixture
def leftover(batchgen: Command, service: Service, running: JobRecord) -> Path:
    """A file of a job that has ended, two hours old."""
    set_job(service.store, running.id, state=JobState.FAILED)
    path = batchgen.home / "parts" / running.public_id / "ckpt-1.e1.ab.parquet"
    path.write_bytes(b"rows")
    os.utime(path, (1.0, 1.0))
    return path


def the_part(service: Service, job: JobRecord) -> Path:
    (path,) = service.results.parts(job.public_id)
    return path


def test_a_sound_home(batchgen: Command, service: Service, job: JobRecord) -> None:
    finish(service, job)
    result = batchgen.ok("fsck")
    assert (result.stdout, result.stderr) == ("", "ok: no violation\n")
    assert batchgen.json("fsck") == {"ok": True, "violations": []}


def test_names_a_missing_part_and_what_to_do(
    batchgen: Command, service: Service, running: JobRecord
) -> None:
    path = the_part(service, running)
    path.unlink()
    result = batchgen("fsck")
    assert result.exit_code == 1
    assert result.stdout == f"I6  parts/{running.public_id}/{path.name} is missing\n"
    assert "`batchgen fsck --adopt` has its rows computed again" in result.stderr
    found = json.loads(batchgen("fsck", "--json").stdout)
    assert not found["ok"]
    assert [one["invariant"] for one in found["violations"]] == ["I6"]
    assert "--adopt" in found["violations"][0]["remedy"]


def test_adopt_heals_what_it_can_before_it_checks(
    batchgen: Command, service: Service, running: JobRecord
) -> None:
    path = the_part(service, running)
    path.unlink()
    result = batchgen.ok("fsck", "--adopt")
    assert result.stdout.startswith(f"reopened  parts/{running.public_id}/{path.name}: ")


def test_adopt_registers_a_forgotten_part(
    batchgen: Command, service: Service, running: JobRecord
) -> None:
    shard = service.store.jobs.shards(running.id)[0]
    forget_part(service.store, shard.id)
    found = batchgen.json("fsck", "--adopt")
    assert found["ok"]
    assert [one["outcome"] for one in found["adoption"]] == ["adopted"]
    assert service.status(running.public_id).progress.rows_ok == 32


def test_collect_removes_what_nobody_needs(batchgen: Command, leftover: Path) -> None:
    shown = batchgen.ok("fsck", "--collect", "--dry-run").stdout
    assert f"{leftover.name} (4 bytes)" in shown
    assert leftover.exists()
    found = batchgen.json("fsck", "--collect")
    assert found["garbage"] == [
        {"key": str(leftover.relative_to(batchgen.home)), "bytes": 4, "removed": True}
    ]
    assert not leftover.exists()
    assert batchgen.ok("fsck", "--collect").stdout == ""


def test_the_age_is_a_setting(batchgen: Command, leftover: Path) -> None:
    os.utime(leftover)
    assert batchgen.ok("fsck", "--collect").stdout == ""
    batchgen.env["BATCHGEN_GARBAGE_AGE"] = "0"
    assert leftover.name in batchgen.ok("fsck", "--collect").stdout


def test_files_of_an_unknown_job_are_told_and_kept(batchgen: Command, job: JobRecord) -> None:
    path = batchgen.home / "parts" / ("e" * 32) / "1.e1.ab.parquet"
    path.parent.mkdir(parents=True)
    path.touch()
    assert f"does not know job {'e' * 32}" in batchgen.ok("fsck", "--collect").stderr
    assert f"left  parts/{'e' * 32}: " in batchgen.ok("fsck", "--adopt").stdout
    assert path.exists()


def test_a_dry_run_of_nothing_is_refused(batchgen: Command) -> None:
    result = batchgen("fsck", "--dry-run")
    assert result.exit_code == 2
    assert "--collect" in result.stderr
