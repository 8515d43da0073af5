"""What a latent layer is worth: retrieval by class, and codes of distorted copies."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.engine import Engine
from models.evaluation.itq import learn_itq
from models.evaluation.measures import mean_average_precision
from models.evaluation.ranking import rank_codes, rank_features
from models.labelled.corpus import Corpus
from models.labelled.extraction import extract
from models.labelled.views import cropped, half_size, quality_40
from models.training.latent_layer import Layer

_K = 1000


def retrieval(
    layer: Layer, engine: Engine, database: Corpus, queries: Corpus, *, seed: int, cache: Path
) -> dict[str, Any]:
    """Rank a database of labelled images for labelled queries of the same classes.

    Args:
        layer: Makes the codes.
        engine: Makes the features.
        database: The images to find.
        queries: The images to look for.
        seed: For the order of the database, which breaks ties, and for ITQ.
        cache: Folder of features.

    Returns:
        For `codes` (Hamming distance), `itq` (as many bits, learned from the database without
        labels) and `features` (cosine distance, every image compared): mean average precision
        and precision. `ones` is the share of queries that have a bit set.
    """
    if queries.classes != database.classes:
        raise ValueError(f"{queries.root} and {database.root} have different classes")
    known, asked = extract(database, engine, cache=cache), extract(queries, engine, cache=cache)
    # Files are listed class by class; ties must not follow that order.
    order = np.random.default_rng(seed).permutation(len(known.features))
    rows, labels = known.features[order], known.corpus.labels[order]
    wanted = asked.features
    k = min(_K, len(rows))
    itq = learn_itq(rows, bits=len(layer.bias), seed=seed)
    rankings = {
        "codes": rank_codes(layer.codes(wanted), layer.codes(rows), k),
        "itq": rank_codes(itq.codes(wanted), itq.codes(rows), k),
        "features": rank_features(wanted, rows, k),
    }
    found: dict[str, Any] = {
        name: _quality(labels[ranking] == asked.corpus.labels[:, None], labels, asked.corpus)
        for name, ranking in rankings.items()
    }
    return {**found, "ones": _ones(layer, wanted)}


def _quality(
    relevant: NDArray[np.bool_], labels: NDArray[np.int64], queries: Corpus
) -> dict[str, float]:
    total = np.bincount(labels)[queries.labels]
    return {
        "map_at_1000": round(mean_average_precision(relevant, total), 4),
        "map_at_1000_of_found": round(mean_average_precision(relevant), 4),
        "precision_at_100": round(float(relevant[:, :100].mean()), 4),
    }


def _ones(layer: Layer, rows: NDArray[np.float32]) -> dict[str, float]:
    """Share of images that have a bit set: the least and the most of any bit, and the mean."""
    bits = np.unpackbits(layer.codes(rows), axis=1, count=len(layer.bias)).mean(0)
    return {
        "least": round(float(bits.min()), 3),
        "mean": round(float(bits.mean()), 3),
        "most": round(float(bits.max()), 3),
    }


def copies(layer: Layer, engine: Engine, photos: Corpus, *, cache: Path) -> dict[str, Any]:
    """Measure how far the codes of distorted copies are from those of their originals.

    Returns:
        For each kind of copy the mean and the largest Hamming distance and the share of copies
        to which fewer than three other photos are nearer than the original; `between_photos`
        is the mean distance of different photos, `ones` the share that have a bit set.
    """
    plain = extract(photos, engine, cache=cache).features
    codes = layer.codes(plain)
    between = np.bitwise_count(codes[:, None] ^ codes).sum(2, dtype=np.int64)
    other = between[~np.eye(len(codes), dtype=bool)]
    found: dict[str, Any] = {
        "photos": len(codes),
        "ones": _ones(layer, plain),
        "between_photos": round(float(other.mean()), 2),
    }
    for view in (half_size, quality_40, cropped):
        changed = layer.codes(extract(photos, engine, view=view, cache=cache).features)
        distances = np.bitwise_count(changed[:, None] ^ codes).sum(2, dtype=np.int64)
        own = np.diagonal(distances)
        nearer = (distances < own[:, None]).sum(1)
        found[view.__name__] = {
            "distance": round(float(own.mean()), 2),
            "worst": int(own.max()),
            "nearer_photos_under_3": round(float((nearer < 3).mean()), 4),
        }
    return found
