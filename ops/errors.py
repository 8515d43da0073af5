"""Errors of the operations room."""

from __future__ import annotations


class OpsError(Exception):
    """Root of every error that ops raises on purpose; the message ends with the remedy."""


class ServiceMissingError(OpsError):
    """A server program is not installed; the message names the Debian package."""


class ServiceFailedError(OpsError):
    """A server that was started ended or did not answer in time."""
