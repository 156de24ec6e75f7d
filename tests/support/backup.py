"""A backup of a cluster's database, and the way back to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from batchgen.jobs.records.job_records import JobRecord
from tests.support.cluster import Cluster
from tests.support.workers import wait_until


class Backup:
    """A copy of a cluster's database, and the way back to it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._file = cluster.store.database.file
        cluster.store.close()
        if self._file is not None:
            shutil.copyfile(self._file, self._copy)
        else:
            self._create(self._name + "_old", self._name)

    def restore(self) -> None:
        """Put the copy in its place; nobody may be connected."""
        self._cluster.store.close()
        if self._file is not None:
            shutil.copyfile(self._copy, self._file)
        else:
            self._create(self._name, self._name + "_old")

    @property
    def _copy(self) -> Path:
        assert self._file is not None
        return self._file.with_suffix(".old")

    @property
    def _name(self) -> str:
        name = make_url(self._cluster.settings.database_url).database
        assert name is not None
        return name

    def _create(self, name: str, template: str) -> None:
        url = make_url(self._cluster.settings.database_url)
        admin = url.set(drivername="postgresql", database="postgres")
        conninfo = admin.render_as_string(hide_password=False)
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')


def work_between_backup_and_loss(cluster: Cluster) -> tuple[JobRecord, Backup]:
    """Commit some shards, make a backup, commit some more, and end every process."""
    job = cluster.submit()
    backup = None
    for rows in (32, 96):
        cluster.brake.after(rows + 16)  # of the next shard too, but not all of it
        members = [cluster.coordinator(), cluster.worker()]
        wait_until(lambda rows=rows: cluster.store.jobs.progress(job.id).rows_ok >= rows)  # type: ignore[misc]
        for member in members:
            member.kill()
        backup = backup or Backup(cluster)
    cluster.brake.release()
    assert backup is not None
    return job, backup
