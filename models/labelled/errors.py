"""What can go wrong with labelled images and with the features kept of them."""

from models.errors import ModelError


class CorpusError(ModelError):
    """A folder or CSV of labelled images is missing, empty, or says nothing about classes."""


class MissingCorpus(CorpusError):
    """There is no such folder or CSV of labelled images."""


class CacheError(ModelError):
    """Features cannot be written where they are kept, for example because the disk is full."""
