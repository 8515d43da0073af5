"""Acknowledgements go out at once."""

from __future__ import annotations

from pathlib import Path

from celery.utils.imports import symbol_by_name

from workers.app import make_app
from workers.consumer import Consumer
from workers.settings import Settings


class _Asleep:
    """An event loop that never comes to what it is given."""

    def call_soon(self, _callback: object) -> None:
        return


def test_an_acknowledgement_does_not_wait_for_the_event_loop(tmp_path: Path) -> None:
    app = make_app(Settings(data_dir=tmp_path))
    consumer_class = symbol_by_name(app.conf.worker_consumer)
    assert consumer_class is Consumer
    consumer = consumer_class.__new__(consumer_class)
    consumer.hub = _Asleep()
    sent: list[str] = []
    consumer.call_soon_ack(sent.append, "ack")
    assert sent == ["ack"]
