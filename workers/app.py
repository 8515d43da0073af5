"""The Celery application and its queues."""

from __future__ import annotations

from celery import Celery
from kombu.entity import Exchange, Queue

from workers.settings import Settings

SEARCH, PROBE, INGEST, INGEST_LIVE, CRAWL = QUEUES = (
    "search",
    "probe",
    "ingest",
    "ingest.live",
    "crawl",
)


def make_app(settings: Settings) -> Celery:
    """Return a Celery application for the broker in the settings; nothing is connected yet."""
    # Without a host kombu warns on every connection.
    broker_url = "memory://localhost//" if settings.embedded else settings.broker_url
    app = Celery("lookalike", broker=broker_url, backend="rpc://", set_as_current=False)
    if settings.embedded:
        app.conf.broker_transport = "workers.transport:Transport"
    exchange = Exchange("lookalike", type="direct", durable=True)
    app.conf.update(
        task_queues=[Queue(name, exchange, routing_key=name, durable=True) for name in QUEUES],
        task_create_missing_queues=False,
        task_default_exchange=exchange.name,
        task_default_exchange_type=exchange.type,
        # Messages carry references and small binary vectors, and never anything executable.
        task_serializer="msgpack",
        result_serializer="msgpack",
        accept_content=["msgpack"],
        # A message is done when its effect is committed, also when its worker dies half-way.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,
        # Outcomes stand in the ledger; only probes answer their caller.
        task_ignore_result=True,
        result_expires=60,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A publish returns when the broker has the message, not when the socket took it.
        broker_transport_options={"confirm_publish": True},
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_max": 0.5},
        worker_consumer="workers.consumer:Consumer",
        worker_pool="workers.pool:Pool",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        # The site and the ledger tell how things stand; nobody listens to these.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
    )
    return app
