"""A backup of a cluster's database, and the way back to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from tests.support.cluster import Cluster


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
