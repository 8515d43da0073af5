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

# How long the in-memory transport sleeps when its queues are empty. It has no other way to wait.
_MEMORY_POLL_S = 0.004


def make_app(settings: Settings) -> Celery:
    """Return a Celery application for the broker in the settings; nothing is connected yet."""
    app = Celery("lookalike", broker=settings.broker_url, backend="rpc://", set_as_current=False)
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
        broker_transport_options=_transport_options(settings),
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_max": 0.5},
        # The site and the ledger tell how things stand; nobody listens to these.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
    )
    return app


def _transport_options(settings: Settings) -> dict[str, object]:
    if settings.embedded:
        return {"polling_interval": _MEMORY_POLL_S}
    # A publish returns when the broker has the message, not when the socket took it.
    return {"confirm_publish": True}
