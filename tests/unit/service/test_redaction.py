"""A URL that is shown never holds a secret, however it is written."""

from __future__ import annotations

import pytest

from batchgen.service.redaction import redact_broker, redact_database

HIDDEN = "***"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("postgresql://me:p%40ss@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:a/bSECRET@host/db", "postgresql://me:***@host/db"),
        ("postgres://me:p?SECRET@host:5433/db", "postgres://me:***@host:5433/db"),
        ("postgresql://u:SEC#RET@host/db", "postgresql://u:***@host/db"),
        ("postgresql://me@server:SECRET@host/db", "postgresql://me%40server:***@host/db"),
        ("postgresql://me:a@SECRET@host/db", HIDDEN),
        ("postgresql://me:a@b/SECRET@host/db", HIDDEN),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:SECRET@[::1]:5432/db", "postgresql://me:***@[::1]:5432/db"),
        (
            "postgresql://host/db?user=me&password=SECRET&sslmode=require",
            "postgresql://host/db?sslmode=require&user=me",
        ),
        (
            "postgresql:///db?host=/run/pg&sslpassword=SECRET&odd=SECRET",
            "postgresql:///db?host=/run/pg&***&sslpassword=***",
        ),
        ("postgresql:///db?host=a:1&host=b:2", "postgresql:///db?host=a:1&host=b:2"),
        ("sqlite:////data/my@batchgen.db", "sqlite:////data/my@batchgen.db"),
        ("mysql://me:SECRET@host/db", HIDDEN),
        ("me:SECRET@host", HIDDEN),
        ("postgresql://me:SECRET@host:port/db", HIDDEN),
    ],
)
def test_a_database(url: str, shown: str) -> None:
    assert redact_database(url) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("redis://:SECRET@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://me:SEC%2FRET@host/0", "redis://me:***@host/0"),
        ("redis://:a@SECRET@host/0", "redis://:***@host/0"),
        ("redis://host/0?password=SECRET", "redis://host/0?password=***"),
        (
            "rediss://:SECRET@a/0?ssl_cert_reqs=none;redis://:SECRET@b:1/0",
            "rediss://:***@a/0?ssl_cert_reqs=none;redis://:***@b:1/0",
        ),
        ("redis+socket:///run/my@broker.sock", "redis+socket:///run/my@broker.sock"),
        ("redis://:a/SECRET@host/0", HIDDEN),
        ("redis://:12/SECRET@host/0", HIDDEN),
        ("redis://:12#SECRET@host/0", HIDDEN),
        ("redis://:12?SEC=RET@host/0", "redis://:12/?***"),
        (":SECRET@host:6379", HIDDEN),
        ("amqp://me:SECRET@host", HIDDEN),
        ("redis://a;:SECRET@host", HIDDEN),
        ("redis://[::1", HIDDEN),
    ],
)
def test_a_broker(url: str, shown: str) -> None:
    assert redact_broker(url) == shown
