"""A COMMIT that fails on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from batchgen.jobs.store import Store

if TYPE_CHECKING:
    from sqlalchemy import PoolProxiedConnection


@pytest.fixture
def break_commit(store: Store) -> Callable[[str], list[str]]:
    """Make the next COMMIT fail, `before` or `after` the server has done it."""
    dialect = store.database.engine.dialect
    error = store.database.engine.dialect.loaded_dbapi.OperationalError
    original = dialect.do_commit

    def arm(moment: str) -> list[str]:
        broken: list[str] = []

        def do_commit(connection: PoolProxiedConnection) -> None:
            if broken:
                original(connection)
                return
            broken.append(moment)
            if moment == "after":
                original(connection)
            connection.driver_connection.close()  # type: ignore[union-attr]
            raise error("the connection was lost")

        dialect.do_commit = do_commit  # type: ignore[method-assign,assignment]
        return broken

    return arm
