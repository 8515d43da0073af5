"""The stored images, their thumbnails and their originals."""

from __future__ import annotations

from pathlib import Path

from PIL import Image as PillowImage

from store import Image
from workers.client.parts import Parts, existing
from workers.decode import ID_BYTES, image_id_of, read_file
from workers.errors import NotFound, WorkerError
from workers.shards import Recent


class CollectionCalls(Parts):
    """Looking at stored images, and deleting them."""

    def count(self) -> int:
        """Return how many images there are."""
        return self._resources.shards.images()

    def recent(self, limit: int = 50, before: str | None = None) -> Recent:
        """Return a page of the latest images; ``before`` is the ``next`` of the page before.

        Raises:
            InvalidRequest: ``before`` is no such value.
        """
        return self._resources.shards.recent(limit, before)

    def labels(self) -> dict[str, int]:
        """Return how many images have each label, the most frequent first."""
        return self._resources.shards.labels()

    def image(self, image_id: str) -> Image:
        """Return an image's record.

        Raises:
            NotFound: There is none.
        """
        image = self._resources.shards.get(image_id) if _is_image_id(image_id) else None
        if image is None:
            raise NotFound(
                f"There is no image {image_id[:40]!r}.", remedy="It may have been deleted."
            )
        return image

    def delete_image(self, image_id: str) -> None:
        """Delete an image; the next search does not find it.

        Raises:
            NotFound: There is none.
        """
        self.image(image_id)
        self._resources.shards.delete([image_id])
        self._files.drop(self._files.thumbnail(image_id))
        self._files.drop(self._files.original(image_id))

    def thumbnail(self, image_id: str) -> Path:
        """Return an image's thumbnail, a JPEG.

        Raises:
            NotFound: There is none.
        """
        self.image(image_id)
        return existing(self._files.thumbnail(image_id), f"thumbnail of {image_id}")

    def original(self, image_id: str) -> tuple[Path, str]:
        """Return the file that an image was taken from, and its media type.

        Only bytes that still have the image's hash are handed out, so a file that was replaced
        since, by whatever, stays private.

        Raises:
            NotFound: It is not on this machine, or not the same any more.
        """
        image = self.image(image_id)
        # Pillow knows its formats only after it has been asked to look for them.
        PillowImage.init()
        media_type = PillowImage.MIME.get(image.format, "application/octet-stream")
        kept = self._files.original(image_id)
        for path in (kept, *(Path(source) for source in image.sources if source.startswith("/"))):
            if _holds(path, image_id, self.settings.max_image_bytes):
                return path, media_type
        raise NotFound(
            f"The original of {image_id} is not on this machine.",
            remedy="Follow its source instead.",
        )


def _is_image_id(text: str) -> bool:
    return len(text) == 2 * ID_BYTES and all(char in "0123456789abcdef" for char in text)


def _holds(path: Path, image_id: str, max_bytes: int) -> bool:
    """Return whether a file's bytes are those of an image."""
    try:
        data = read_file(path, max_bytes=max_bytes, label=str(path))
    except WorkerError:
        return False
    return image_id_of(data) == image_id
