"""What can go wrong with a store, as one family of exceptions."""


class StoreError(Exception):
    """Root of every error that this package raises on purpose, apart from `ValueError`."""


class StoreMismatch(StoreError):
    """The store was built with another model bundle than the one in use."""


class StoreVersionError(StoreError):
    """The store's format is newer than this program, or older and to be migrated."""


class NotAStore(StoreError):
    """The path holds no store, or a file that is something else."""


class StoreDamaged(StoreError):
    """The files of the store contradict themselves or end too early."""


class StoreClosed(StoreError):
    """The store is used after `close()`, or in a process that did not open it."""


class StoreInUse(StoreError):
    """This process has the store open already."""


class StoreFull(StoreError):
    """The disk, a quota or the address space has no room for the change; nothing was stored.

    A disk that fails to write ends here too: LMDB does not tell the two apart.
    """


class StoreReadOnly(StoreError):
    """The folder or the files of the store may not be written."""


class NothingToRetrain(StoreError):
    """The codes of the store are so short that they are their own bucket key."""


class TransferError(StoreError):
    """A file of exported images cannot be written, or cannot be read as one."""
