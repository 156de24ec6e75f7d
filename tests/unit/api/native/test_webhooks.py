from __future__ import annotations

from typing import Any

import pytest

from batchgen.api.native.schemas.webhooks import (
    Delivery,
    DeliveryList,
    Webhook,
    WebhookList,
    WebhookWithSecret,
)
from batchgen.service import Service
from batchgen.webhooks.webhooks import MOST
from tests.support.api import Api
from tests.unit.api.native.conftest import Submit, problem

PATH = "/api/v1/webhooks"
URL = "https://hooks.example.org/in"


@pytest.fixture
def api(api: Api) -> Api:
    """The app of an operator who has named a host."""
    changed = {"webhook_hosts": "hooks.example.org"}
    api.service.settings = api.service.settings.model_copy(update=changed)
    return api


def added(api: Api, **asked: Any) -> WebhookWithSecret:
    """A webhook of the first tenant."""
    answer = api.ours.post(PATH, json={"url": URL, **asked})
    assert answer.status_code == 201, answer.text
    return WebhookWithSecret.model_validate(answer.json())


def test_only_the_first_answer_has_the_secret(api: Api) -> None:
    made = added(api, events=["batch.completed"])
    assert made.secret.startswith("whsec_")
    listed = api.ours.get(PATH)
    (found,) = WebhookList.model_validate(listed.json()).data
    assert (found.id, found.url, found.events) == (made.id, URL, ["batch.completed"])
    shown = api.ours.get(f"{PATH}/{made.id}")
    assert Webhook.model_validate(shown.json()) == found
    assert made.secret not in listed.text + shown.text


def test_the_end_of_a_job_is_a_delivery(api: Api, submit: Submit, service: Service) -> None:
    made = added(api)
    job = submit()
    service.store.jobs.fail(service.job(job["id"]).id, "The model is gone.")
    answer = api.ours.get(f"{PATH}/{made.id}/deliveries", params={"limit": 5})
    (delivery,) = DeliveryList.model_validate(answer.json()).data
    assert (delivery.type, delivery.subject) == ("job.failed", job["id"])
    assert (delivery.state, delivery.attempts) == ("pending", 0)
    last = Webhook.model_validate(api.ours.get(f"{PATH}/{made.id}").json()).last_delivery
    assert last == delivery


def test_a_test_is_queued(api: Api) -> None:
    made = added(api)
    answer = api.ours.post(f"{PATH}/{made.id}/test")
    assert answer.status_code == 202
    delivery = Delivery.model_validate(answer.json())
    assert (delivery.type, delivery.subject) == ("webhook.test", made.id)


def test_a_removed_webhook_is_gone(api: Api) -> None:
    made = added(api)
    assert api.ours.delete(f"{PATH}/{made.id}").status_code == 204
    assert problem(api.ours.delete(f"{PATH}/{made.id}")) == (404, "webhook_not_found")


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"url": "https://evil.org/"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": f"{URL}\0"}, "url"),
        ({"url": URL, "events": ["job.faild"]}, "events"),
    ],
)
def test_what_cannot_be_added_is_refused(api: Api, asked: dict[str, Any], param: str) -> None:
    answer = api.ours.post(PATH, json=asked)
    assert problem(answer) == (400, "invalid_parameter")
    assert answer.json()["param"] == param
    assert api.ours.get(PATH).json() == {"data": []}


def test_too_many_are_refused(api: Api) -> None:
    for _ in range(MOST):
        added(api)
    assert problem(api.ours.post(PATH, json={"url": URL})) == (409, "not_allowed")


@pytest.mark.parametrize("name", ["id", "0" * 32, "x", "%00", "..%2f"])
def test_a_webhook_of_another_tenant_is_not_there(api: Api, name: str) -> None:
    made = added(api)
    at = f"{PATH}/{made.id if name == 'id' else name}"
    asked = [("GET", at), ("DELETE", at), ("POST", f"{at}/test"), ("GET", f"{at}/deliveries")]
    for method, path in asked:
        answer = api.theirs.request(method, path)
        assert answer.status_code == 404, (method, path)
        assert made.id not in answer.text
    assert api.theirs.get(PATH).json() == {"data": []}
    assert len(api.ours.get(PATH).json()["data"]) == 1


def test_a_key_without_the_scope_admin_changes_nothing(api: Api) -> None:
    at = f"{PATH}/{added(api).id}"
    usual = api.ours_with("submit", "read")
    assert problem(usual.post(PATH, json={"url": URL})) == (403, "missing_scope")
    assert problem(usual.post(f"{at}/test")) == (403, "missing_scope")
    assert problem(usual.delete(at)) == (403, "missing_scope")
    assert usual.get(PATH).status_code == 200
    assert api.ours_with("admin").delete(at).status_code == 204
