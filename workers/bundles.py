"""The bundle that the settings name."""

from models.bundle import Bundle
from models.catalogue import ensure_bundle
from workers.settings import Settings


def find_bundle(settings: Settings, name: str | None = None, *, needs_code: bool = True) -> Bundle:
    """Load a bundle, making it ready if this machine has not done so yet.

    Args:
        settings: Where bundles are looked for and kept.
        name: Its name or directory; by default the one in use.
        needs_code: Refuse a bundle that has no code layer yet.

    Raises:
        ModelError: There is no such bundle, or it cannot be used.
    """
    return ensure_bundle(
        settings.bundle if name is None else name,
        cache_dir=settings.cache_dir,
        bundles_dir=settings.bundles_dir,
        needs_code=needs_code,
    )
