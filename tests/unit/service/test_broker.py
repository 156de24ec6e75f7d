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


def test_a_socket_whose_path_is_too_long_is_named() -> None:
    path = f"/run/{'long/' * 25}broker.sock"
    with pytest.raises(InvalidParameter, match=f"{path}, is {len(path)} bytes long; 107 are"):
        ping(f"redis+socket://{path}")


def test_of_several_brokers_one_has_to_answer(broker_url: str) -> None:
    nobody = "redis://127.0.0.1:9/0"
    assert ping(f"{nobody};{broker_url}") == ping(f"{broker_url};{nobody}")


@pytest.mark.parametrize("url", ["amqp://localhost", "localhost:6379", "redis://host:port/0"])
def test_a_url_that_names_no_broker(url: str) -> None:
    with pytest.raises(InvalidParameter):
        ping(url)
