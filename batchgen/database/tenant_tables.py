"""The tables of those who use the service over the network: tenants, their keys, their usage."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Integer, Table, Text

from batchgen.database.tables import metadata

#: Those who own jobs and files. The tenant `local` owns what the command line submits.
tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", Double, nullable=False),
    # Quotas; NULL is no limit. Jobs that have not ended, and the rows of one job.
    Column("max_jobs", Integer),
    Column("max_rows", BigInteger),
    # Expected tokens of jobs that have not ended, and bytes of uploaded files that are kept.
    Column("max_tokens", BigInteger),
    Column("max_bytes", BigInteger),
)

api_keys = Table(
    "api_keys",
    metadata,
    # the public part of the key
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text),
    # HMAC-SHA-256 of the secret part, as hex
    Column("digest", Text, nullable=False),
    # words of `submit read admin`, with spaces between
    Column("scopes", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    Index(None, "tenant_id"),
)

#: Sums over ended jobs. The transaction that ends a job adds to them; a removed job still counts.
usage = Table(
    "usage",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    # the key that submitted, "" for the command line
    Column("key_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("jobs", BigInteger, nullable=False, server_default="0"),
    Column("rows_ok", BigInteger, nullable=False, server_default="0"),
    Column("rows_err", BigInteger, nullable=False, server_default="0"),
    Column("prompt_tokens", BigInteger, nullable=False, server_default="0"),
    Column("completion_tokens", BigInteger, nullable=False, server_default="0"),
    Column("cached_tokens", BigInteger, nullable=False, server_default="0"),
)
