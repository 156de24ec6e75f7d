from __future__ import annotations

import pytest

from batchgen.database.database import Database
from batchgen.errors import InvalidParameter, TenantNotFound
from batchgen.tenants.tenants import TenantManager


@pytest.fixture
def tenants(database: Database) -> TenantManager:
    return TenantManager(database)


def test_the_command_line_is_a_tenant_from_the_start(tenants: TenantManager) -> None:
    assert [tenant.id for tenant in tenants.list()] == ["local"]


def test_a_tenant_is_added_once(tenants: TenantManager) -> None:
    added = tenants.add("acme")
    assert tenants.add("acme") == added == tenants.get("acme")
    assert [tenant.id for tenant in tenants.list()] == ["acme", "local"]


def test_an_unknown_tenant_is_not_found(tenants: TenantManager) -> None:
    with pytest.raises(TenantNotFound, match="nobody"):
        tenants.get("nobody")


@pytest.mark.parametrize("name", ["", "Acme", "-a", "a b", "a/../b", "a" * 65, "a\n", "é"])
def test_a_name_is_short_and_plain(tenants: TenantManager, name: str) -> None:
    with pytest.raises(InvalidParameter, match="name a tenant"):
        tenants.add(name)
