from __future__ import annotations

import time

import pytest
from openai import OpenAI
from standardwebhooks import Webhook as Receiver
from standardwebhooks import WebhookVerificationError

from batchgen.webhooks.events import Event, payload_of
from batchgen.webhooks.signatures import new_secret, signed_headers

BODY = payload_of(Event.BATCH_EXPIRED, delivery="d", created_at=1.9, subject="batch_1").encode()


def test_the_example_of_the_specification() -> None:
    headers = signed_headers(
        b'{"test": 2432232314}',
        identity="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_receivers_accept_what_was_signed_now() -> None:
    secret, now = new_secret(), int(time.time())
    headers = signed_headers(BODY, identity="evt_d", timestamp=now, secret=secret)
    assert Receiver(secret).verify(BODY, headers)["data"] == {"id": "batch_1"}
    event = OpenAI(api_key="x").webhooks.unwrap(BODY, headers, secret=secret)
    assert (event.type, event.id, event.created_at) == ("batch.expired", "evt_d", 1)


@pytest.mark.parametrize("changed", ["body", "id", "time", "secret"])
def test_receivers_refuse_what_was_changed_or_is_old(changed: str) -> None:
    secret, now = new_secret(), int(time.time())
    headers = signed_headers(BODY, identity="evt_d", timestamp=now, secret=secret)
    body, key = BODY, secret
    if changed == "body":
        body = BODY.replace(b"batch_1", b"batch_2")
    elif changed == "id":
        headers["webhook-id"] = "evt_e"
    elif changed == "time":
        headers = signed_headers(BODY, identity="evt_d", timestamp=now - 600, secret=secret)
    else:
        key = new_secret()
    with pytest.raises(WebhookVerificationError):
        Receiver(key).verify(body, headers)
