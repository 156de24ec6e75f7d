from __future__ import annotations

import stat
from pathlib import Path

from batchgen.database.database import Database
from batchgen.database.identity import open_storage
from batchgen.service.access import Access
from batchgen.tenants.local_key import KEY_FILE
from batchgen.tenants.principal import Scope


def opened(database: Database, home: Path) -> Access:
    return Access(database, open_storage(database, home))


def test_a_home_has_one_key_that_may_do_all(database: Database, tmp_path: Path) -> None:
    access = opened(database, tmp_path)
    key = access.local_key()
    principal = access.authenticate(key)
    assert principal is not None and principal.tenant == "local"
    assert all(principal.may(scope) for scope in Scope)
    assert opened(database, tmp_path).local_key() == key
    assert len(access.keys.list()) == 1


def test_only_its_owner_may_read_it(database: Database, tmp_path: Path) -> None:
    opened(database, tmp_path).local_key()
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_a_key_that_is_not_valid_any_more_is_replaced(database: Database, tmp_path: Path) -> None:
    access = opened(database, tmp_path)
    old = access.local_key()
    access.keys.revoke(access.keys.list()[0].id)
    new = access.local_key()
    assert access.authenticate(old) is None
    assert access.authenticate(new) is not None
    (tmp_path / KEY_FILE).write_bytes(b"\xff no key" * 1000)
    assert access.authenticate(access.local_key()) is not None
