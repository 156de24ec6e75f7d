"""Every line of "whose fault it is", against a scripted server."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from batchgen_workers.endpoint.dispatcher import MOST_OUTAGES_ALONE
from batchgen_workers.endpoint.verdict import ATTEMPTS
from batchgen_workers.endpoint.waiting_rows import OUTAGES_TO_SUSPECT
from tests.support.scripted_endpoint import (
    CANARY,
    MODEL,
    Asked,
    Reply,
    ScriptedEndpoint,
    answer,
    error,
)
from tests.unit.workers.endpoint.conftest import Ask

CERTIFICATE = Path(__file__).parents[3] / "support" / "elsewhere.pem"
MANY = [f"row {at}" for at in range(40)]
ANSWERS = [f"answer to {prompt}" for prompt in MANY]


def test_every_row_is_answered_once(endpoint: ScriptedEndpoint, ask: Ask) -> None:
    asking = ask(endpoint.url)
    asking.put(*MANY, max_tokens=5)
    asking.finish()
    assert asking.texts() == ANSWERS
    assert sorted(endpoint.rows) == sorted(MANY)
    stats = asking.engine.stats()
    assert (stats.prompt_tokens, stats.generated_tokens) == (3 * 40, 2 * 40)
    assert (stats.running, stats.waiting, stats.retries, stats.waiting_for) == (0, 0, 0, "")


def test_an_endpoint_that_refuses_connections_is_waited_for(
    endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    endpoint.kill()
    asking = ask(endpoint.url)
    asking.put(*MANY)
    asking.step()
    assert "no connection" in asking.engine.stats().waiting_for
    assert asking.ended == {}
    endpoint.start()
    asking.finish()
    assert asking.texts() == ANSWERS


def test_a_server_that_is_killed_loses_no_row_and_doubles_none(
    endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    left = [10]  # rows that are answered before the others hang

    def some(asked: Asked) -> Reply | None:
        if asked.prompt not in MANY:
            return None
        left[0] -= 1
        return Reply(hangs=True) if left[0] < 0 else None

    endpoint.script = some
    asking = ask(endpoint.url)
    asking.put(*MANY)
    for more in (10, 10, 40):
        asking.until(lambda: left[0] < 0)
        endpoint.kill()
        asking.until(lambda: asking.engine.stats().waiting_for != "")
        left[0] = more
        endpoint.start()
    asking.finish()
    assert asking.texts() == ANSWERS


def test_an_answer_that_breaks_off_is_asked_again(endpoint: ScriptedEndpoint, ask: Ask) -> None:
    broken: set[str] = set()

    def once(asked: Asked) -> Reply | None:
        if asked.prompt in MANY[::3] and asked.prompt not in broken:
            broken.add(asked.prompt)
            whole = answer(asked)
            return Reply(body=whole.body, cut_after=9)
        return None

    endpoint.script = once
    asking = ask(endpoint.url)
    asking.put(*MANY)
    asking.finish()
    assert asking.texts() == ANSWERS
    assert len(broken) == len(MANY[::3])


def test_a_row_that_ends_every_connection_is_found_and_blamed_alone(
    endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    def poisoned(asked: Asked) -> Reply | None:
        return Reply(body=b"{", cut_after=0) if asked.prompt == "row 7" else None

    endpoint.script = poisoned
    asking = ask(endpoint.url)
    asking.put(*MANY)
    asking.finish()
    assert asking.texts() == [*ANSWERS[:7], "server_error", *ANSWERS[8:]]
    assert endpoint.rows.count("row 7") <= OUTAGES_TO_SUSPECT + MOST_OUTAGES_ALONE


@pytest.mark.parametrize("status", [401, 403, 502, 504, 307])
def test_a_status_of_the_endpoint_blames_no_row(
    status: int, endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    metadata = "http://169.254.169.254/latest/meta-data"
    endpoint.script = lambda asked: error(status, "no", location=metadata)
    asking = ask(endpoint.url)
    asking.put(*MANY)
    asking.until(lambda: str(status) in asking.engine.stats().waiting_for)
    assert asking.ended == {}
    endpoint.script = lambda asked: None
    asking.finish()
    assert asking.texts() == ANSWERS


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_rows_that_all_fail_alike_are_not_blamed(
    status: int, endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    endpoint.script = lambda asked: error(status, "broken") if asked.method == "POST" else None
    asking = ask(endpoint.url)
    asking.put(*MANY)
    asking.until(lambda: f"{status} broken" in asking.engine.stats().waiting_for)
    assert asking.ended == {}
    endpoint.script = lambda asked: None
    asking.finish()
    assert asking.texts() == ANSWERS


def test_a_row_that_the_server_refuses_has_its_code_and_message(
    endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    def refusing(asked: Asked) -> Reply | None:
        return error(400, "It is bad.", "bad_thing") if asked.prompt == "row 7" else None

    endpoint.script = refusing
    asking = ask(endpoint.url)
    asking.put(*MANY)
    failed = asking.finish()[8].error
    assert failed is not None
    assert (failed.code, failed.message) == ("bad_thing", "It is bad.")
    assert endpoint.rows.count("row 7") in (1, 2)


def test_a_single_row_that_is_refused_is_blamed_once_the_canary_was_answered(
    endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    endpoint.script = lambda asked: error(400, "no") if asked.prompt == "alone" else None
    asking = ask(endpoint.url)
    asking.put("alone")
    asking.finish()
    assert asking.texts() == ["some_code"]
    assert CANARY in endpoint.answered
    assert endpoint.rows == ["alone", "alone"]


@pytest.mark.parametrize(
    "reply",
    [error(500, "inner"), Reply(body=b"<html>"), Reply(body={"choices": []})],
    ids=["500", "no JSON", "no choices"],
)
def test_a_row_that_the_server_fails_at_is_tried_a_few_times(
    reply: Reply, endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    endpoint.script = lambda asked: reply if asked.prompt == "row 7" else None
    asking = ask(endpoint.url)
    asking.put(*MANY)
    asking.finish()
    assert asking.texts() == [*ANSWERS[:7], "server_error", *ANSWERS[8:]]
    # one attempt does not count if nothing else was answered yet
    assert endpoint.rows.count("row 7") in (ATTEMPTS, ATTEMPTS + 1)


def test_a_row_that_hangs_is_blamed_once_others_were_answered(
    endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    endpoint.script = lambda asked: Reply(hangs=True) if asked.prompt == "row 7" else None
    asking = ask(endpoint.url, timeout=2.0)
    asking.put(*MANY[:10])
    asking.finish()
    assert asking.texts() == [*ANSWERS[:7], "server_error", *ANSWERS[8:10]]


def test_a_row_that_is_aborted_leaves_the_endpoint(endpoint: ScriptedEndpoint, ask: Ask) -> None:
    endpoint.script = lambda asked: Reply(hangs=True) if asked.prompt == "row 0" else None
    asking = ask(endpoint.url)
    asking.put(*MANY[:3])
    asking.until(lambda: len(asking.ended) == 2)
    assert asking.engine.has_unfinished()
    asking.engine.abort([1])
    asking.until(lambda: endpoint.held == 1)  # a canceled request breaks its connection
    assert not asking.engine.has_unfinished()


def test_a_storm_of_refusals_loses_no_row(endpoint: ScriptedEndpoint, ask: Ask) -> None:
    endpoint.capacity, endpoint.takes = 5, 0.002
    asking = ask(endpoint.url)
    prompts = [f"row {at}" for at in range(300)]
    asking.put(*prompts)
    asking.finish()
    assert asking.texts() == [f"answer to {prompt}" for prompt in prompts]
    assert set(endpoint.answered.values()) == {1}
    assert endpoint.refused > 0
    assert endpoint.most_held <= 5


def test_retry_after_is_obeyed(endpoint: ScriptedEndpoint, ask: Ask) -> None:
    endpoint.script = lambda asked: (
        error(429, "later", retry_after="3000") if asked.method == "POST" else None
    )
    asking = ask(endpoint.url)
    asking.put(*MANY[:3])
    asking.until(lambda: len(endpoint.rows) == 3 and asking.engine.stats().running == 0)
    assert "asks to wait" in asking.engine.stats().waiting_for
    asked = len(endpoint.asked)
    asking.put(*MANY[3:])
    for _ in range(10):
        asking.step()
    assert len(endpoint.asked) == asked
    assert asking.ended == {}


def test_a_server_that_came_back_with_another_model_answers_no_row(
    endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    asking = ask(endpoint.url)
    asking.put("first")
    asking.finish()
    endpoint.kill()
    endpoint.models = {"another": None}
    endpoint.start()
    asking.put("second")
    asking.until(lambda: "'another'" in asking.engine.stats().waiting_for)
    assert len(asking.ended) == 1
    endpoint.models = {MODEL: None}
    asking.finish()
    assert asking.texts() == ["answer to first", "answer to second"]


def test_an_answer_of_ten_gigabytes_is_not_taken(endpoint: ScriptedEndpoint, ask: Ask) -> None:
    endpoint.script = lambda asked: Reply(endless=True) if asked.prompt == "row 7" else None
    asking = ask(endpoint.url, most_bytes=100_000)
    asking.put(*MANY)
    asking.finish()
    assert asking.texts() == [*ANSWERS[:7], "result_too_large", *ANSWERS[8:]]
    assert endpoint.rows.count("row 7") in (1, 2)


def test_the_certificate_of_another_host_gets_no_row(ask: Ask) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    endpoint = ScriptedEndpoint()
    endpoint.tls = tls
    with endpoint:
        asking = ask(endpoint.url)
        asking.put("secret")
        asking.until(lambda: "certificate is not accepted" in asking.engine.stats().waiting_for)
        assert endpoint.asked == []


def test_the_key_is_sent_and_never_told(
    endpoint: ScriptedEndpoint, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    quoting = error(401, "Incorrect API key provided: sk-very-secret.")
    endpoint.script = lambda asked: quoting
    asking = ask(endpoint.url, api_key_env="SOME_KEY")
    asking.put("row")
    asking.until(lambda: "Incorrect API key" in asking.engine.stats().waiting_for)
    assert "sk-very-secret" not in repr(asking.engine.stats())
    assert {asked.headers["authorization"] for asked in endpoint.asked} == {"Bearer sk-very-secret"}


def test_a_parameter_that_the_dialect_does_not_take_is_never_dropped(
    endpoint: ScriptedEndpoint, ask: Ask
) -> None:
    asking = ask(endpoint.url)
    asking.put("beams", num_beams=4)
    failed = asking.finish()[1].error
    assert failed is not None
    assert (failed.code, failed.param) == ("unsupported_parameter", "num_beams")
    assert endpoint.rows == []
