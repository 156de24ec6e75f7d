"""Alembic's environment; it uses the connection and transaction that the runner opened."""

from __future__ import annotations

from alembic import context

from batchgen.database.tables import metadata
from batchgen.failpoints import reach

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
    on_version_apply=lambda **_: reach("migration.applied"),
)
with context.begin_transaction():
    context.run_migrations()
