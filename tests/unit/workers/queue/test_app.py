from __future__ import annotations

import ssl
from typing import Any

import pytest
from celery.app.defaults import NAMESPACES, flatten

from batchgen.errors import BrokerUnavailable, InvalidParameter
from batchgen.service.exposure import check_broker
from batchgen.settings import Settings
from batchgen_workers.queue.app import CELERY_SETTINGS, create_app
from batchgen_workers.queue.redis_transport import Transport

REDIS = "redis://localhost:6379/0"


def conf() -> Any:
    return create_app(Settings(broker_url=REDIS), model="tiny").conf


def test_every_setting_is_one_that_celery_knows() -> None:
    options: list[Any] = list(flatten(NAMESPACES))
    known = {option[0] for option in options}
    assert set(CELERY_SETTINGS) <= known
    assert "worker_disable_prefetch" in known


def test_messages_are_json_and_nothing_else() -> None:
    settings = conf()
    assert settings.accept_content == ["json"]
    assert settings.task_serializer == "json"


def test_results_go_nowhere() -> None:
    app = create_app(Settings(broker_url=REDIS))
    assert app.conf.result_backend is None
    assert app.conf.task_ignore_result is True
    assert type(app.backend).__name__ == "DisabledBackend"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_acks_late", True),
        ("task_reject_on_worker_lost", False),
        ("task_retry_on_worker_lost", False),
        ("worker_prefetch_multiplier", 1),
        ("worker_disable_prefetch", True),
        ("worker_pool", "threads"),
        ("worker_cancel_long_running_tasks_on_connection_loss", False),
        ("worker_enable_remote_control", False),
        ("worker_send_task_events", False),
        ("worker_soft_shutdown_timeout", 0.0),
        ("broker_connection_retry_on_startup", True),
        ("broker_connection_max_retries", None),
        ("task_create_missing_queues", False),
        ("task_default_queue", "bg.shards"),
        ("task_time_limit", None),
        ("task_soft_time_limit", None),
        ("worker_state_db", None),
    ],
)
def test_settings_that_must_not_drift(name: str, value: object) -> None:
    assert getattr(conf(), name) == value


def test_redis_neither_waits_for_ever_nor_redelivers_while_a_shard_runs() -> None:
    options = create_app(Settings(broker_url=REDIS)).conf.broker_transport_options
    assert options["visibility_timeout"] == 604_800
    assert (options["unacked_restore_interval"], options["unacked_restore_throttle"]) == (60, 1)
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (10, 5)
    assert options["global_keyprefix"] == "batchgen:"


def test_a_worker_listens_to_its_models_queue_alone() -> None:
    app = create_app(Settings(broker_url=REDIS, shards_in_flight=3), model="tiny")
    assert list(app.amqp.queues) == ["bg.tiny"]
    assert app.conf.worker_concurrency == 3


def test_a_missing_broker_says_how_to_get_one() -> None:
    with pytest.raises(BrokerUnavailable, match="BATCHGEN_BROKER_URL"):
        create_app(Settings(broker_url=""))


def test_a_broker_on_another_machine_needs_password_and_tls() -> None:
    exposed = Settings(broker_url="redis://broker.internal/0")
    with pytest.raises(InvalidParameter, match="BATCHGEN_BROKER_URL"):
        create_app(exposed)
    create_app(exposed.model_copy(update={"insecure": True})).close()


def test_looking_at_a_url_first_leaves_its_transport_to_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kombu.transport._transport_cache", {})
    settings = Settings(broker_url="redis://localhost/0")
    check_broker(settings)
    app = create_app(settings)
    with app.connection_for_write() as connection:
        assert connection.get_transport_cls() is Transport
    app.close()


@pytest.mark.parametrize(
    ("url", "required"),
    [
        ("rediss://:word@broker.internal/0", True),
        ("rediss://:word@broker.internal/0?ssl_ca_certs=/etc/ca.pem", True),
        ("rediss://:word@broker.internal/0?ssl_cert_reqs=none", False),
    ],
)
def test_the_certificate_of_a_broker_is_checked_unless_told_otherwise(
    url: str, required: bool
) -> None:
    app = create_app(Settings(broker_url=url, insecure=True))
    with app.connection_for_write() as connection:
        options: Any = connection.ssl
        assert (options["ssl_cert_reqs"] is ssl.CERT_REQUIRED) is required
    app.close()
