"""Alembic's environment; it uses the connection and transaction that the runner opened."""

from __future__ import annotations

from alembic import context

from batchgen.database import batch_tables, tenant_tables, webhook_tables
from batchgen.database.tables import metadata
from batchgen.failpoints import reach

# Their tables are in `metadata` once these modules are imported.
assert batch_tables and tenant_tables and webhook_tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
    on_version_apply=lambda **_: reach("migration.applied"),
)
with context.begin_transaction():
    context.run_migrations()
