from __future__ import annotations

import pytest

from batchgen.errors import BrokerUnavailable, InvalidParameter
from batchgen.service.broker import ping


def test_a_broker_says_what_it_is(broker_url: str) -> None:
    assert ping(broker_url).startswith(("Valkey", "Redis"))


@pytest.mark.parametrize(
    "url", ["redis://:s3cret@127.0.0.1:9/0", "redis+socket:///nowhere/broker.sock"]
)
def test_a_broker_that_does_not_answer(url: str) -> None:
    with pytest.raises(BrokerUnavailable, match="BATCHGEN_BROKER_URL") as error:
        ping(url)
    assert "s3cret" not in error.value.message


@pytest.mark.parametrize("url", ["amqp://localhost", "localhost:6379", "redis://host:port/0"])
def test_a_url_that_names_no_broker(url: str) -> None:
    with pytest.raises(InvalidParameter):
        ping(url)
