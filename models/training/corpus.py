"""Features of labelled images for training and measuring, computed once and kept."""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from models.engine import Engine
from models.images import upright_rgb

_BATCH = 64


@dataclass(frozen=True)
class Corpus:
    """Images with a class each.

    Attributes:
        root: The folder they are in.
        paths: Their files, N of them.
        labels: shape=(N,), dtype=int64; indices into `classes`.
        classes: Names of the classes, sorted.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def list_corpus(root: Path) -> Corpus:
    """List `root/CLASS/FILE`, or `root/CLASS_rest.EXT` where there are no folders.

    Raises:
        ValueError: There is no image.
    """
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        raise ValueError(f"no image below {root}; give a folder with a folder for each class")
    flat = paths[0].parent == root
    names = [path.stem.split("_")[0] if flat else path.parent.name for path in paths]
    classes, labels = np.unique(names, return_inverse=True)
    return Corpus(root, tuple(paths), labels.astype(np.int64), tuple(classes.tolist()))


View = Callable[[Image.Image, np.random.Generator], Image.Image]
"""Makes another version of a picture."""


def unchanged(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    """Return the picture itself."""
    return image


def half_size(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    """Halve both sides."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def quality_40(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    """Save as JPEG of quality 40."""
    return _recompressed(image, 40)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    """Cut a tenth off the left and off the top."""
    return image.crop((image.width // 10, image.height // 10, image.width, image.height))


def distorted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop to 60 to 100% of each side, mirror half of the time, shrink and recompress."""
    across, down = (round(side * rng.uniform(0.6, 1.0)) for side in image.size)
    left = int(rng.integers(image.width - across + 1))
    top = int(rng.integers(image.height - down + 1))
    image = image.crop((left, top, left + across, top + down))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    shrink = rng.uniform(0.5, 1.0)
    image = image.resize(
        (max(1, round(across * shrink)), max(1, round(down * shrink))), Image.Resampling.BICUBIC
    )
    return _recompressed(image, int(rng.integers(30, 96)))


def _recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def features(
    corpus: Corpus, engine: Engine, *, view: View = unchanged, seed: int = 0, cache: Path
) -> NDArray[np.float32]:
    """Compute the features of every image of a corpus, or read them from the cache.

    Args:
        corpus: N images.
        engine: The network.
        view: Applied to every picture before the network sees it.
        seed: Together with an image's place it fixes what `view` draws.
        cache: Folder for the results, made if it does not exist.

    Returns:
        shape=(N, D), dtype=float32.
    """
    target = cache / f"{_key(corpus, engine, view, seed)}.npy"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        found = np.concatenate(list(_extract(corpus, engine, view, seed)))
        partial = target.with_suffix(".part")
        with partial.open("wb") as file:
            np.save(file, found)
        partial.rename(target)
    known: NDArray[np.float32] = np.load(target)
    return known


def _key(corpus: Corpus, engine: Engine, view: View, seed: int) -> str:
    names = "\n".join(str(path.relative_to(corpus.root)) for path in corpus.paths)
    network = engine.bundle.sha256
    digest = hashlib.sha256(f"{network} {seed} {corpus.root}\n{names}".encode())
    return f"{corpus.root.name}-{view.__name__}-{digest.hexdigest()[:12]}"


def _extract(
    corpus: Corpus, engine: Engine, view: View, seed: int
) -> Iterator[NDArray[np.float32]]:
    preprocess = engine.bundle.preprocess

    def pixels(index: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng([seed, index])
        with Image.open(corpus.paths[index]) as image:
            return preprocess.pixels(upright_rgb(view(upright_rgb(image), rng)))

    count = len(corpus.paths)
    name = f"{corpus.root.name} {view.__name__}"
    with ThreadPoolExecutor(2) as pool, tqdm(total=count, desc=name, unit="image") as bar:
        ahead = list(pool.map(pixels, range(min(_BATCH, count))))
        for start in range(0, count, _BATCH):
            batch = np.stack(ahead)
            # The next batch is decoded while the network runs on this one.
            later = range(start + _BATCH, min(start + 2 * _BATCH, count))
            futures = [pool.submit(pixels, index) for index in later]
            yield engine.embed(batch).features
            ahead = [future.result() for future in futures]
            bar.update(len(batch))
