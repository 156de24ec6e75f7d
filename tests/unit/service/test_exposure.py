"""A server on another machine needs a password and TLS, or the operator's word."""

from __future__ import annotations

import pytest

from batchgen.errors import InvalidParameter
from batchgen.service.database import current, open_database, upgrade
from batchgen.service.doctor import examine
from batchgen.service.exposure import check_broker, check_database, check_exposure
from batchgen.settings import Settings

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def no_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPASSWORD", "PGPASSFILE", "PGSSLMODE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


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
        f"postgresql://user:{SECRET}@db.internal/db?sslmode=require",
        f"postgresql://user:{SECRET}@db.internal/db?sslmode=verify-full",
        f"postgresql://user@db.internal/db?sslmode=verify-ca&password={SECRET}",
        "postgresql://user@db.internal/db?sslmode=verify-full&sslcert=/etc/us.crt",
        "postgresql://user@db.internal/db?sslmode=verify-full&passfile=/etc/pgpass",
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
        ("postgresql://user@[2001:db8::7]/db?sslmode=require", "no password"),
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
        f"rediss://broker.internal/0?password={SECRET}",
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
        ("redis://localhost/0?hostname=broker.internal", "no password and no TLS"),
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


@pytest.mark.parametrize("url", [f"{SECRET}@broker:6379", f"amqp://u:{SECRET}@h", "redis://[::1"])
def test_what_celery_would_take_for_rabbitmq_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="broker URL") as error:
        check_broker(Settings(broker_url=url))
    assert SECRET not in error.value.message


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
