"""No command repeats a secret of a URL, whatever is wrong with it, not even with --verbose."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Command

SECRET = "s3cret"
NOBODY = "127.0.0.1:9"  # nothing answers there

DATABASES = [
    f"postgresql://u:{SECRET}@{NOBODY}/db",
    f"postgresql://u:a/b{SECRET}@{NOBODY}/db",
    f"postgresql://u:a@{SECRET}@{NOBODY}/db",
    f"postgresql://u:a@b/{SECRET}@{NOBODY}/db",
    f"postgresql://{NOBODY}/db?user=u&password={SECRET}&sslpassword={SECRET}",
    f"postgresql://u:{SECRET}@{NOBODY}/db?nonsense={SECRET}",
    f"postgresql://u:{SECRET}@db.invalid/db",
    f"mysql://u:{SECRET}@{NOBODY}/db",
    f"u:{SECRET}@{NOBODY}",
]
BROKERS = [
    f"redis://:{SECRET}@{NOBODY}/0",
    f"redis://u:{SECRET}@{NOBODY}/0?password={SECRET}",
    f"redis://:a/{SECRET}@{NOBODY}/0",
    f"redis://:12/{SECRET}@{NOBODY}/0",
    f"redis://:12#{SECRET}@{NOBODY}/0",
    f"rediss://:{SECRET}@broker.invalid/0?ssl_cert_reqs=sometimes",
    f"amqp://u:{SECRET}@{NOBODY}",
    f"u:{SECRET}@{NOBODY}",
]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a doctor that looks at the database and the broker alone."""
    from batchgen.service import doctor

    checks = (doctor._database, doctor._schema, doctor._broker)
    monkeypatch.setattr(doctor, "CHECKS", checks)


@pytest.mark.usefixtures("doctor")
@pytest.mark.parametrize("insecure", ["0", "1"])
@pytest.mark.parametrize("url", DATABASES, ids=range(len(DATABASES)))
def test_of_a_database(batchgen: Command, url: str, insecure: str) -> None:
    batchgen.env |= {"BATCHGEN_DATABASE_URL": url, "BATCHGEN_INSECURE": insecure}
    for command, code in (("ls", {1, 2, 3}), ("doctor", {3}), ("config show", {0})):
        result = batchgen(*command.split(), "--verbose")
        assert result.exit_code in code, result.output
        assert SECRET not in result.output


@pytest.mark.usefixtures("doctor")
@pytest.mark.parametrize("url", BROKERS, ids=range(len(BROKERS)))
def test_of_a_broker(batchgen: Command, url: str) -> None:
    batchgen.env |= {"BATCHGEN_BROKER_URL": url}
    for command, code in (("doctor", 3), ("config show", 0)):
        result = batchgen(*command.split(), "--verbose")
        assert result.exit_code == code, result.output
        assert SECRET not in result.output
