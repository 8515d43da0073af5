"""Small worlds for the tests of the store: specs, images, and search by brute force."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from store import Hit, NewImage, Query, StoreSpec, hamming, pack
from store.values import query_values

DIMS = 8
HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures"


def make_spec(bits=20, *, metric="cosine", centres=None, bundle_id="tiny@0123456789ab"):
    return StoreSpec(bundle_id=bundle_id, bits=bits, dims=DIMS, metric=metric, centres=centres)


def make_id(number):
    return hashlib.sha256(b"%d" % number).hexdigest()[:32]


def make_code(feature, bits):
    """A code by a fixed projection: near features have near codes."""
    projection = np.random.default_rng(1).normal(size=(DIMS, bits))
    return pack(feature @ projection > 0)


def make_image(number, bits=20, *, origin=None, source=None, feature=None, labels=()):
    """An image that is always the same for the same number, in one of a few clusters."""
    if feature is None:
        rng = np.random.default_rng(number)
        middle = np.random.default_rng(number % 5 + 1000).normal(size=DIMS)
        feature = (middle + 0.3 * rng.normal(size=DIMS)).astype(np.float32)
    return NewImage(
        id=make_id(number),
        code=make_code(feature, bits),
        feature=feature,
        source=source or f"/photos/{number}.jpg",
        origin=origin or f"item-{number}",
        added_at=1_700_000_000.0 + number,
        width_px=640,
        height_px=480,
        format="JPEG",
        size_bytes=12_345,
        labels=labels,
    )


def make_query(image, *, k=10, candidates=None, **options):
    return Query(code=image.code, feature=image.feature, k=k, candidates=candidates, **options)


def find(shard, query):
    """The hits of a search with their records."""
    return shard.hits(shard.search(query))


def brute_force(shard, images, query):
    """Search by definition: every stored vector, one by one, in double precision."""
    hits = []
    asked = rounded(query.feature)
    for image in images:
        code, feature = shard.vectors(image.id)
        record = shard.get(image.id)
        bits = int(hamming(query.code, code[None])[0])
        apart = distance(asked, feature, shard.spec.metric)
        hits.append(
            Hit(
                id=image.id,
                distance=apart + query.code_weight * bits / shard.spec.bits,
                hamming=bits,
                sources=record.sources,
                labels=record.labels,
                width_px=record.width_px,
                height_px=record.height_px,
                format=record.format,
                added_at=record.added_at,
            )
        )
    return sorted(hits, key=lambda hit: (hit.distance, hit.id))


def rounded(feature):
    """A query's feature as searches see it, up to 1/64,516 of its largest value."""
    seen = query_values(feature)
    fine = 0 if seen.fine is None else seen.fine * seen.fine_scale
    return seen.coarse * seen.coarse_scale + fine


def distance(one, other, metric):
    one, other = one.astype(np.float64), other.astype(np.float64)
    if metric == "l2":
        return float(np.linalg.norm(one - other))
    return float(1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def assert_same_hits(found, expected):
    """Same images with the same particulars; distances agree up to single precision."""
    distances = {hit.id: hit.distance for hit in expected}
    assert [plain(hit) for hit in by_id(found)] == [plain(hit) for hit in by_id(expected)]
    for hit in found:
        assert abs(hit.distance - distances[hit.id]) < 2e-6
    assert [(h.distance, h.id) for h in found] == sorted((h.distance, h.id) for h in found)


def by_id(hits):
    return sorted(hits, key=lambda hit: hit.id)


def plain(hit):
    return replace(hit, distance=0.0)


def unpack_fixture(name, folder):
    """Unpack a store that an earlier version wrote, see `fixtures/README.md`."""
    with tarfile.open(FIXTURES / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")


def run_in_fork(work):
    """Run `work` in a forked child and return what it returned or raised, as text."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            outcome = f"returned {work()}"
        except Exception as error:  # noqa: BLE001 - told to the parent
            outcome = f"{type(error).__name__}: {error}"
        os.write(sending, outcome.encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        outcome = pipe.read()
    os.waitpid(child, 0)
    return outcome


@contextmanager
def running(script, *arguments):
    """A script of this folder in a process that has said "ready"; killed at the end."""
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
