"""A whole installation for a benchmark: servers, a home with a model of no weights, processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.database.database import Database
from batchgen.jobs.store import Store
from batchgen.models.record import ModelRecord
from batchgen.settings import Settings
from batchgen_migrations import upgrade
from tests.support.homes import pin_model
from tests.support.processes import Processes, processes
from tests.support.servers import running_broker, running_postgres, server_folder

DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Measures what comes before the first process of ours runs."""

    folder: Path
    settings: Settings
    store: Store
    model: ModelRecord
    # starts coordinators and workers of that model
    processes: Processes

    @property
    def home(self) -> Path:
        """The folder of inputs, parts and datasets."""
        return self.settings.home


@contextmanager
def migrated_database(kind: str, *, url: str = "") -> Iterator[str]:
    """Yield the URL of an empty database: the one given, or one of the kind that goes again."""
    with ExitStack() as stack:
        if not url and kind == "postgresql":
            url = stack.enter_context(running_postgres(stack.enter_context(server_folder("bgpg-"))))
        elif not url:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchgen-sqlite-"))
            url = f"sqlite:///{folder}/batchgen.db"
        upgrade(url)
        yield url


@contextmanager
def installation(
    database: str, *, database_url: str = "", broker_url: str = "", **settings: Any
) -> Iterator[Installation]:
    """Yield an installation; nothing of it outlives the block but what stands at given URLs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchgen-scale-")))
        url = stack.enter_context(migrated_database(database, url=database_url))
        if not broker_url:
            broker_url = stack.enter_context(
                running_broker(stack.enter_context(server_folder("bgvk-")))
            )
        home = folder / "home"
        values = Settings(home=home, database_url=url, broker_url=broker_url, **settings)
        store = stack.enter_context(closing(Store(Database(url))))
        model = pin_model(home)
        yield Installation(
            folder=folder,
            settings=values,
            store=store,
            model=model,
            processes=stack.enter_context(processes(values, folder)),
        )
