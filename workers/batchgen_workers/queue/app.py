"""The Celery app and its settings: it carries shard ids and keeps no results."""

from __future__ import annotations

import os
import socket
from typing import Any

from celery import Celery
from kombu import Queue

from batchgen.errors import BrokerUnavailable
from batchgen.service.broker_url import celery_url
from batchgen.service.exposure import check_broker
from batchgen.settings import Settings
from batchgen_workers.queue.redis_transport import install

VISIBILITY_TIMEOUT = 604_800  # seconds; longer than any shard: recovery comes from leases

CELERY_SETTINGS: dict[str, Any] = {
    # A message is JSON with an id, so it can carry no code and no prompt.
    "task_serializer": "json",
    "accept_content": ["json"],
    "event_serializer": "json",
    # Results are in SQL. Celery's database backend would unpickle the data that it reads.
    "result_backend": None,
    "task_ignore_result": True,
    # A worker that ends returns its messages; a failed shard is dispatched again from SQL.
    "task_acks_late": True,
    "task_acks_on_failure": True,
    "task_acks_on_timeout": True,
    "task_reject_on_worker_lost": False,
    "task_retry_on_worker_lost": False,
    # Do not hold a message of a shard that another worker could start.
    "worker_prefetch_multiplier": 1,
    "worker_pool": "threads",
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_connection_timeout": 4,
    "task_publish_retry_policy": {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 1,
    },
    # The default becomes True in Celery 6, but threads cannot be cancelled.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Workers report their health by heartbeats in SQL.
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_soft_shutdown_timeout": 0.0,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "task_create_missing_queues": False,
    "task_default_queue": "bg.shards",
}


def queue_of(model: str) -> Queue:
    """Return the queue of one model's shards."""
    return Queue(f"bg.{model}", routing_key=f"bg.{model}", durable=True)


def create_app(settings: Settings, *, model: str | None = None, broker_url: str = "") -> Celery:
    """Return a Celery app; with `model` it can consume that model's queue.

    `broker_url` overrides the one in the settings. Raises BrokerUnavailable if there is none,
    InvalidParameter if it is on another machine without password or TLS.
    """
    url = broker_url or settings.broker_url
    if not url:
        raise BrokerUnavailable(
            "No broker is configured. Set BATCHGEN_BROKER_URL to a Redis or Valkey, "
            "or start everything on this machine with `batchgen up`."
        )
    check_broker(settings.model_copy(update={"broker_url": url}))
    install()
    app = Celery("batchgen", broker=celery_url(url), set_as_current=False)
    app.conf.update(CELERY_SETTINGS)
    app.conf.update(
        worker_concurrency=settings.shards_in_flight,
        task_queues=[queue_of(model)] if model else [Queue("bg.shards")],
        **_redis(),
    )
    return app


def _redis() -> dict[str, Any]:
    options = {
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "unacked_restore_interval": 60,
        "unacked_restore_throttle": 1,
        # With the defaults a half-open connection would block for ever.
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "global_keyprefix": "batchgen:",
        "client_name": f"batchgen-{socket.gethostname()}-{os.getpid()}",
    }
    return {
        "broker_transport_options": options,
        "result_backend_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT},
        "worker_disable_prefetch": True,
    }
