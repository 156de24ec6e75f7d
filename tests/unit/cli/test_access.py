"""Keys and tenants on the command line of the machine that has the home."""

from __future__ import annotations

import json

import pytest

from batchgen.jobs.records.job_records import JobRecord
from batchgen.service import Service
from tests.support.homes import finish
from tests.unit.cli.conftest import Command


class TestKeys:
    def test_a_key_is_shown_once(self, batchgen: Command, service: Service) -> None:
        created = batchgen.ok("keys", "create", "--name", "laptop")
        key = created.stdout.strip()
        principal = service.access.authenticate(key)
        assert principal is not None and principal.tenant == "local"
        assert "not shown again" in created.stderr
        listed = batchgen.ok("keys", "ls").stdout + batchgen.ok("keys", "ls", "--json").stdout
        assert "laptop" in listed and principal.key_id in listed
        assert key[20:] not in listed

    def test_of_a_tenant_with_scopes(self, batchgen: Command) -> None:
        batchgen.ok("tenants", "add", "acme")
        made = batchgen.json(
            *("keys", "create", "--tenant", "acme", "--scope", "read", "--scope", "admin")
        )
        assert (made["tenant"], made["scopes"]) == ("acme", ["read", "admin"])
        del made["key"]
        assert batchgen.json("keys", "ls", "--tenant", "acme") == [made]
        assert batchgen.json("keys", "ls", "--tenant", "local") == []

    def test_a_revoked_key_is_not_valid(self, batchgen: Command, service: Service) -> None:
        first, second = (batchgen.json("keys", "create") for _ in range(2))
        batchgen.ok("keys", "revoke", first["id"])
        batchgen.ok("keys", "revoke", first["id"])
        assert service.access.authenticate(first["key"]) is None
        assert service.access.authenticate(second["key"]) is not None
        assert batchgen.json("keys", "ls")[0]["revoked_at"]

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (("create", "--tenant", "nobody"), 4),
            (("create", "--scope", "write"), 2),
            (("create", "--name", "a" * 201), 2),
            (("ls", "--tenant", "nobody"), 4),
            (("revoke", "0" * 16), 4),
        ],
    )
    def test_what_is_not_there(self, batchgen: Command, words: tuple[str, ...], code: int) -> None:
        assert batchgen("keys", *words).exit_code == code
        assert batchgen.json("keys", "ls") == []


class TestTenants:
    def test_quotas_are_set_one_by_one(self, batchgen: Command) -> None:
        batchgen.ok("tenants", "add", "acme")
        batchgen.ok("tenants", "set", "acme", "--max-jobs", "3", "--max-bytes", "1000000")
        batchgen.ok("tenants", "set", "acme", "--max-rows", "1000", "--max-bytes", "none")
        acme, local = batchgen.json("tenants", "ls")
        assert acme["quotas"] == {
            "max_jobs": 3,
            "max_rows": 1000,
            "max_tokens": None,
            "max_bytes": None,
        }
        assert set(local["quotas"].values()) == {None}
        assert "0 of 3" in batchgen.ok("tenants", "ls").stdout
        assert batchgen.ok("tenants", "ls", "-q").stdout == "acme\nlocal\n"

    def test_a_quota_is_kept(self, batchgen: Command, job: JobRecord) -> None:
        batchgen.ok("tenants", "set", "local", "--max-jobs", "1")
        refused = batchgen(
            "submit", batchgen.file("p.jsonl", b'{"prompt": "a"}\n'), "-m", "tiny", "--json"
        )
        assert refused.exit_code == 4
        assert json.loads(refused.stderr)["error"]["type"] == "QuotaExceeded"
        assert batchgen.json("tenants", "ls")[0]["use"]["jobs"] == 1

    def test_usage(self, batchgen: Command, service: Service, job: JobRecord) -> None:
        assert batchgen.json("tenants", "usage") == []
        finish(service, job)
        (used,) = batchgen.json("tenants", "usage", "local")
        expected = {"tenant": "local", "key_id": None, "model": "tiny", "jobs": 1, "rows_ok": 4}
        assert {name: used[name] for name in expected} == expected
        assert "tiny" in batchgen.ok("tenants", "usage").stdout

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (("add", "No Name"), 2),
            (("set", "local"), 2),
            (("set", "local", "--max-jobs", "-1"), 2),
            (("set", "local", "--max-jobs", "many"), 2),
            (("set", "local", "--max-jobs", str(1 << 31)), 2),
            (("set", "nobody", "--max-jobs", "1"), 4),
            (("usage", "nobody"), 4),
        ],
    )
    def test_what_cannot_be(self, batchgen: Command, words: tuple[str, ...], code: int) -> None:
        assert batchgen("tenants", *words).exit_code == code
