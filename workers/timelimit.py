"""A limit on the whole time of a fetch: its connections are cut when the time is up.

A socket's own timeout counts from byte to byte, so a server that sends one now and then is never
late. Only looking the name up is left to the limits of the system's resolver.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError


class TimeLimit:
    """Cuts the connections that it is shown, at the end of its time."""

    def __init__(self) -> None:
        self.over = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def watch(self, connected: socket.socket) -> None:
        """Cut a connection too when the time is up, or now if it is."""
        with self._lock:
            # A descriptor of our own: TLS takes the original's away from it.
            self._sockets.append(connected.dup())
        if self.over:
            self.cut()

    def cut(self) -> None:
        """End all connections; whoever waits for an answer sees its end."""
        with self._lock:
            self.over = True
            for each in self._sockets:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:  # the other side was first
                    continue

    def release(self) -> None:
        """Let go of the connections."""
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()


_limit: ContextVar[TimeLimit | None] = ContextVar("_limit", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[TimeLimit]:
    """Limit the time of what sessions of :func:`obey_time_limit` do in this thread and block."""
    limit = TimeLimit()
    timer = threading.Timer(seconds, limit.cut)
    timer.daemon = True
    token = _limit.set(limit)
    timer.start()
    try:
        yield limit
    finally:
        timer.cancel()
        timer.join()
        _limit.reset(token)
        limit.release()


def obey_time_limit(session: requests.Session) -> None:
    """Let a session open connections that end with the time limit they were opened under."""
    for adapter in session.adapters.values():
        if isinstance(adapter, HTTPAdapter):
            adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def _watched(connected: socket.socket) -> socket.socket:
    limit = _limit.get()
    if limit is not None:
        limit.watch(connected)
    return connected


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        _refuse_when_over(self)
        return _watched(super()._new_conn())


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        _refuse_when_over(self)
        return _watched(super()._new_conn())


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _refuse_when_over(connection: HTTPConnection) -> None:
    limit = _limit.get()
    if limit is not None and limit.over:
        raise ConnectTimeoutError(connection, "The time for this fetch is over.")
