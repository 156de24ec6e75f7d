"""Tenants, keys and usage as JSON: the form of the command's --json and of the HTTP API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from batchgen.calendar.times import rfc3339
from batchgen.tenants.keys import KeyRecord
from batchgen.tenants.principal import Scope
from batchgen.tenants.quotas import QuotaUse
from batchgen.tenants.tenants import TenantRecord
from batchgen.tenants.usage import UsageRecord


def key_json(key: KeyRecord) -> dict[str, Any]:
    """Return a key as JSON, without its secret."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": [str(scope) for scope in Scope if scope in key.scopes],
        "created_at": rfc3339(key.created_at),
        "revoked_at": rfc3339(key.revoked_at),
    }


def tenant_json(tenant: TenantRecord, use: QuotaUse) -> dict[str, Any]:
    """Return a tenant as JSON: its quotas, and what it has of what they limit."""
    return {
        "id": tenant.id,
        "created_at": rfc3339(tenant.created_at or None),
        "quotas": asdict(tenant.quotas),
        "use": asdict(use),
    }


def usage_json(record: UsageRecord) -> dict[str, Any]:
    """Return the usage of one tenant, key and model as JSON."""
    values = asdict(record)
    return {"tenant": values.pop("tenant_id"), **values}
