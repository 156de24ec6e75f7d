"""A server on another machine needs a password and TLS, or the operator's word."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from batchgen.errors import InvalidParameter
from batchgen.service.broker_url import celery_url
from batchgen.service.database import current, open_database, upgrade
from batchgen.service.doctor import examine
from batchgen.service.exposure import check_broker, check_database, check_exposure, check_server
from batchgen.settings import ServerSettings, Settings
from tests.support.repository import ROOT

SECRET = "s3cret"


SERVICES = f"""\
[far]
host=db.internal
password={SECRET}

[near]
host=localhost
"""


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave nothing to the machine: no PG… variable, and a home of the test's own."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "services").write_text(SERVICES)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    (tmp_path / "pgpass").write_text(f"db.internal:*:*:*:{SECRET}\n")
    (tmp_path / "pgpass").chmod(0o600)
    (tmp_path / "root.crt").touch()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite:////srv/batchgen.db",
        "postgresql:///db",
        "postgresql://user@localhost/db",
        "postgresql://user@LOCALHOST:5433/db",
        "postgresql+psycopg://user@127.8.0.1/db",
        "postgres://user@[::1]:5432/db",
        "postgresql:///db?host=/run/postgresql",
        "postgresql:///db?host=localhost:5432&host=127.0.0.1:5433",
        f"postgresql://user:{SECRET}@db.internal/db?sslmode=require&sslrootcert=root.crt",
        "postgresql://user@db.internal/db?host=localhost",  # the query goes first
        "postgresql://user@db.internal/db?hostaddr=127.0.0.1",
        "postgresql:///db?service=near",
        "postgresql:///db?host=@abstract",
        f"postgresql://user:{SECRET}@db.internal/db?sslmode=verify-full",
        f"postgresql://user@db.internal/db?sslmode=verify-ca&password={SECRET}",
        "postgresql://user@db.internal/db?sslmode=verify-full&sslcert=/etc/us.crt",
        "postgresql://user@db.internal/db?sslmode=verify-full&passfile=pgpass",
        "not a url",  # opening it says what is wrong
    ],
)
def test_a_database_that_is_near_or_protected(url: str) -> None:
    check_database(Settings(database_url=url))


@pytest.mark.parametrize(
    ("url", "lacks"),
    [
        ("postgresql://user@db.internal/db", "no password and no TLS"),
        ("postgres://user@10.0.0.7:5432/db", "no password and no TLS"),
        (f"postgresql://user:{SECRET}@db.internal/db", "no TLS"),
        (f"postgresql://user:{SECRET}@db.internal/db?sslmode=prefer", "no TLS"),
        (f"postgresql://user:{SECRET}@db.internal/db?sslmode=disable", "no TLS"),
        (f"postgresql://user:{SECRET}@db.internal/db?sslmode=require", "no TLS that checks"),
        ("postgresql://user@[2001:db8::7]/db?sslmode=verify-full", "no password."),
        ("postgresql://u@127.0.0.1/db?host=db.internal", "no password and no TLS"),
        ("postgresql://u@127.0.0.1/db?service=far&host=db.internal", "no TLS"),
        ("postgresql:///db?service=far", "no TLS"),
        (f"postgresql://u:{SECRET}@/db?host=,db.internal&port=1,2", "no TLS"),
        ("postgresql://u@/db?hostaddr=127.0.0.1,10.0.0.7", "no password and no TLS"),
        ("postgresql://u@other.internal/db?sslmode=verify-full&passfile=pgpass", "no password."),
        ("postgresql://u@db.internal/db?sslmode=verify-full&passfile=none", "no password."),
        (f"postgresql://u:{SECRET}@/db?host=localhost:5432&host=db.internal:5432", "no TLS"),
        (f"postgresql://u:{SECRET}@/db?host=localhost,db.internal", "no TLS"),
        (f"postgresql://u:{SECRET}@localhost/db?hostaddr=10.0.0.7", "no TLS"),
        (f"postgresql://u:{SECRET}@127.0.0.1.example.org/db", "no TLS"),
        (f"postgresql://u:{SECRET}@0.0.0.0/db", "no TLS"),
    ],
)
def test_a_database_on_another_machine_is_refused(url: str, lacks: str) -> None:
    with pytest.raises(InvalidParameter, match="BATCHGEN_DATABASE_URL") as error:
        check_database(Settings(database_url=url))
    assert lacks in error.value.message
    assert "BATCHGEN_INSECURE=1" in error.value.message
    assert SECRET not in error.value.message
    check_database(Settings(database_url=url, insecure=True))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PGHOST", "db.internal"), ("PGHOSTADDR", "10.0.0.7"), ("PGSERVICE", "far")],
)
def test_where_libpq_would_go_by_its_variables_counts(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidParameter, match="is on another machine"):
        check_database(Settings(database_url="postgresql:///db"))


@pytest.mark.parametrize("query", ["service=nowhere", "nonsense=1"])
def test_what_libpq_refuses_is_refused(query: str) -> None:
    url = f"postgresql://u:{SECRET}@/db?{query}"
    with pytest.raises(InvalidParameter, match="The database URL cannot be used") as error:
        check_database(Settings(database_url=url))
    assert SECRET not in error.value.message


def test_what_libpq_reads_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(database_url="postgresql:///db")
    monkeypatch.setenv("PGHOST", "db.internal")
    with pytest.raises(InvalidParameter, match="The database at db"):
        check_database(settings)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    check_database(settings)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://localhost:6379/0",
        "redis://:word@127.0.0.1/0",
        "redis://[::1]:6379/0",
        "redis://",
        "redis+socket:///run/broker.sock",
        "unix:///run/broker.sock",
        "memory://localhost/",
        f"rediss://:{SECRET}@broker.internal:6379/0",
        f"rediss://user:{SECRET}@broker.internal:6379/0?ssl_ca_certs=/etc/ca.pem",
        f"redis://localhost;rediss://:{SECRET}@broker.internal",
    ],
)
def test_a_broker_that_is_near_or_protected(url: str) -> None:
    check_broker(Settings(broker_url=url))


@pytest.mark.parametrize(
    ("url", "lacks"),
    [
        ("redis://broker.internal:6379/0", "no password and no TLS"),
        (f"redis://:{SECRET}@broker.internal:6379/0", "no TLS"),
        ("rediss://broker.internal:6379/0", "no password"),
        ("rediss://user@broker.internal:6379/0", "no password"),
        (f"redis://localhost;redis://:{SECRET}@broker.internal", "no TLS"),
        (f"redis://localhost;REDIS://:{SECRET}@broker.internal", "no TLS"),
        (f"rediss://:{SECRET}@broker.internal?ssl_cert_reqs=none", "TLS that does not check"),
        (f"rediss://:{SECRET}@broker.internal?ssl_cert_reqs=CERT_NONE", "TLS that does not check"),
        (f"rediss://:{SECRET}@broker.internal?ssl_check_hostname=false", "TLS that does not check"),
        (f"redis://:{SECRET}@[2001:db8::7]:6379/0", "no TLS"),
    ],
)
def test_a_broker_on_another_machine_is_refused(url: str, lacks: str) -> None:
    with pytest.raises(InvalidParameter, match="BATCHGEN_BROKER_URL") as error:
        check_broker(Settings(broker_url=url))
    assert lacks in error.value.message
    assert "BATCHGEN_INSECURE=1" in error.value.message
    assert SECRET not in error.value.message
    check_broker(Settings(broker_url=url, insecure=True))


@pytest.mark.parametrize(
    "url",
    [
        f"{SECRET}@broker:6379",
        f"amqp://u:{SECRET}@h",
        "redis://[::1",
        "redis://localhost:port",
        f"redis://:12/{SECRET}@broker.internal",
        f"sentinel://:{SECRET}@localhost:26379",
        f"rediss://broker.internal/0?password={SECRET}",
        "redis:///0?host=broker.internal",
        "redis://localhost/0?hostname=broker.internal",
        "redis://localhost/0?transport=sentinel",
        "redis://localhost/0?alternates=redis://broker.internal",
        "rediss://localhost?ssl_cert_reqs=sometimes",
        "rediss://localhost?ssl=0",
    ],
)
def test_what_celery_would_take_for_another_broker_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="broker URL") as error:
        check_broker(Settings(broker_url=url))
    assert SECRET not in error.value.message


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("redis://a;rediss://b", "redis://a;rediss://b?ssl_cert_reqs=required"),
        ("REDISS://b", "rediss://b?ssl_cert_reqs=required"),
        ("rediss://b?virtual_host=1", None),
        ("rediss://b?x_ssl_cert_reqs=none", None),
        ("rediss://:ssl_cert_reqs=@b/0?ssl_ca_certs=/ca.pem", None),
        ("rediss://b?ssl_cert_reqs=", None),
        ("rediss://b?ssl_cert_reqs=none", "rediss://b?ssl_cert_reqs=none"),
        ("unix:///run/broker.sock", "redis+socket:///run/broker.sock"),
    ],
)
def test_celery_is_asked_to_check_the_certificate(url: str, taken: str | None) -> None:
    assert celery_url(url) == (taken or f"{url}&ssl_cert_reqs=required")


def test_the_servers_of_the_documentation_are_protected() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = tomllib.loads(page.partition("```toml\n")[2].partition("```")[0])
    check_exposure(Settings(database_url=example["database_url"]))


def test_nothing_is_asked_of_a_database_that_is_exposed() -> None:
    settings = Settings(database_url=f"postgresql://user:{SECRET}@db.internal/db")
    for opening in (open_database, upgrade, current, check_exposure):
        with pytest.raises(InvalidParameter, match="BATCHGEN_DATABASE_URL"):
            opening(settings)


def test_doctor_names_what_is_exposed() -> None:
    settings = Settings(
        database_url=f"postgresql://user:{SECRET}@db.internal/db",
        broker_url=f"redis://:{SECRET}@broker.internal",
    )
    found = {check.name: check for check in examine(settings)}
    for name in ("database", "schema", "broker"):
        assert found[name].failed
        assert "BATCHGEN_INSECURE" in found[name].detail
        assert SECRET not in found[name].detail


@pytest.mark.parametrize(
    ("server", "refused"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),  # noqa: S104
        ({"host": "::"}, True),
        ({"host": "10.0.0.7"}, True),
        ({"host": "0.0.0.0", "tls_cert": "c.pem", "tls_key": "k.pem"}, False),  # noqa: S104
        ({"tls_cert": "c.pem"}, True),
    ],
)
def test_a_server_beyond_this_machine_needs_tls(server: dict[str, str], refused: bool) -> None:
    settings = Settings(server=ServerSettings.model_validate(server))
    if not refused:
        check_server(settings)
        return
    with pytest.raises(InvalidParameter):
        check_server(settings)
    if "tls_cert" not in server:
        check_server(settings.model_copy(update={"insecure": True}))
