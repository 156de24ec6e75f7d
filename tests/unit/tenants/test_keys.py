from __future__ import annotations

import hmac
from pathlib import Path

import pytest
from sqlalchemy import select, update

from batchgen.database.database import Database
from batchgen.database.tenant_tables import api_keys
from batchgen.errors import InvalidParameter, KeyNotFound, TenantNotFound
from batchgen.tenants.keys import KeyManager
from batchgen.tenants.pepper import Pepper
from batchgen.tenants.principal import Principal, Scope


def rows(keys: KeyManager) -> list[tuple[str, ...]]:
    with keys.database.begin_reading() as connection:
        return [tuple(map(str, row)) for row in connection.execute(select(api_keys))]


def test_a_key_proves_its_tenant_and_its_scopes(keys: KeyManager) -> None:
    new = keys.create("acme", scopes={Scope.READ}, name="laptop")
    assert keys.authenticate(new.key) == Principal(
        tenant="acme", key_id=new.record.id, scopes=frozenset({Scope.READ})
    )
    assert (new.record.tenant, new.record.name, new.record.revoked_at) == ("acme", "laptop", None)
    assert keys.list(tenant="acme") == [new.record]


def test_a_new_key_may_submit_and_read(keys: KeyManager) -> None:
    assert keys.create("local").record.scopes == {Scope.SUBMIT, Scope.READ}


def test_the_store_keeps_nothing_of_the_secret(keys: KeyManager, tmp_path: Path) -> None:
    new = keys.create("acme")
    secret = new.key.split("_", 2)[2]
    assert len(secret) == 43
    assert new.record.id in new.key
    assert secret not in repr(rows(keys)) + repr(new)
    stored = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert stored and not any(secret.encode() in path.read_bytes() for path in stored)


def test_digests_need_the_pepper_of_the_home(
    keys: KeyManager, database: Database, tmp_path: Path
) -> None:
    new = keys.create("acme")
    elsewhere = KeyManager(database, Pepper(tmp_path / "other"))
    assert elsewhere.authenticate(new.key) is None  # it has no pepper at all
    elsewhere.create("acme")
    assert elsewhere.authenticate(new.key) is None  # it has another one
    assert KeyManager(database, Pepper(tmp_path / "home")).authenticate(new.key) is not None


def other(key: str, at: int) -> str:
    return key[:at] + ("A" if key[at] != "A" else "B") + key[at + 1 :]


def test_a_key_with_any_other_character_is_wrong(keys: KeyManager) -> None:
    key = keys.create("acme").key
    assert all(keys.authenticate(other(key, at)) is None for at in range(len(key)))


def test_the_last_bits_of_a_secret_count(keys: KeyManager) -> None:
    # 43 characters hold 258 bits: a decoder would ignore the last two
    key = keys.create("acme").key
    assert sum(keys.authenticate(key[:-1] + last) is not None for last in "AQgwBCDEFGHIJ_-") == (
        key[-1] in "AQgwBCDEFGHIJ_-"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "bg_", "bg__", "Bearer", "\0", "\ud800", "bg_0000000000000000_" + "A" * 44),
        *("' OR 1=1 --", "bg_' OR '1'='1_" + "A" * 43, "bg_%_%", "A" * 1_000_000),
        "bg_0000000000000000_" + "A" * 43,  # well formed, and unknown
        f"bg_{chr(0x660) * 16}_" + "A" * 43,  # digits, but not these
    ],
)
def test_what_is_no_key_proves_nothing(keys: KeyManager, text: str) -> None:
    keys.create("acme")
    assert keys.authenticate(text) is None


def test_a_newline_after_a_key_is_another_key(keys: KeyManager) -> None:
    assert keys.authenticate(keys.create("acme").key + "\n") is None


def test_a_digest_is_not_valid_under_another_id(keys: KeyManager) -> None:
    mine, theirs = keys.create("local"), keys.create("acme")
    with keys.database.begin() as connection:
        row = connection.execute(select(api_keys).where(api_keys.c.id == mine.record.id)).one()
        changed = update(api_keys).where(api_keys.c.id == theirs.record.id)
        connection.execute(changed.values(digest=row.digest))
    forged = mine.key.replace(mine.record.id, theirs.record.id)
    assert keys.authenticate(forged) is None


def test_unknown_and_wrong_keys_take_the_same_work(
    keys: KeyManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = keys.create("acme").key
    revoked = keys.create("acme")
    keys.revoke(revoked.record.id)
    lengths: list[tuple[int, int]] = []

    def compare(left: str, right: str) -> bool:
        lengths.append((len(left), len(right)))
        return left == right

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for key in (other(right, -1 % len(right)), "bg_0000000000000000_" + "A" * 43, revoked.key):
        assert keys.authenticate(key) is None
    assert lengths == [(64, 64)] * 3


class TestRevoke:
    def test_a_revoked_key_proves_nothing(self, keys: KeyManager) -> None:
        revoked, kept = keys.create("acme"), keys.create("acme")
        record = keys.revoke(revoked.record.id)
        assert record.revoked_at is not None
        assert keys.authenticate(revoked.key) is None
        assert keys.authenticate(kept.key) is not None
        assert keys.revoke(revoked.record.id) == record
        assert record in keys.list()

    def test_another_tenant_cannot(self, keys: KeyManager) -> None:
        new = keys.create("acme")
        for key_id, tenant in ((new.record.id, "local"), ("0" * 16, None)):
            with pytest.raises(KeyNotFound):
                keys.revoke(key_id, tenant=tenant)
        assert keys.authenticate(new.key) is not None


def test_keys_need_a_tenant_that_exists(keys: KeyManager) -> None:
    with pytest.raises(TenantNotFound, match="batchgen tenants ls"):
        keys.create("nobody")
    assert rows(keys) == []


@pytest.mark.parametrize("name", ["", "a" * 201, "nul\0", "\ud800"])
def test_a_name_that_cannot_be_stored_is_refused(keys: KeyManager, name: str) -> None:
    with pytest.raises(InvalidParameter):
        keys.create("acme", name=name)


def test_a_list_is_of_one_tenant_or_of_all(keys: KeyManager) -> None:
    theirs, ours = keys.create("acme").record, keys.create("local").record
    assert keys.list(tenant="acme") == [theirs]
    assert keys.list(tenant="local") == [ours]
    assert sorted(key.id for key in keys.list()) == sorted([theirs.id, ours.id])
