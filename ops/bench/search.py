"""`lookalike bench search`: the store and its peers, on the same images and queries, in turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.bench import peers, search_states
from ops.bench.figures import rounded
from ops.bench.machine import facts
from ops.bench.output import put
from ops.bench.search_build import Collection, open_collection
from ops.bench.search_compare import compare
from ops.bench.search_curves import write_curves
from ops.bench.search_data import FromFile, Source, Synthetic
from ops.bench.search_names import (
    BUILD,
    CANDIDATES,
    COLD,
    DELETE,
    INSERT,
    OPEN,
    SEARCHES,
    WHOLE,
    WRITES,
)
from ops.bench.search_table import table
from ops.bench.search_truth import Truth
from ops.bench.search_ways import OURS, Way, figures, our_ways, take_turns
from ops.cli.console import Console
from store import Shard
from workers.searching import DEFAULT_EFFORT, MAX_EFFORT, candidates_for
from workers.settings import Settings

Figures = dict[str, Any]

_NOT_ALWAYS = {"recall": None, "memory_mb": None}


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        n: Numbers of images; each gets a store of its own.
        bits: Lengths of the codes; likewise.
        dims: Length of made-up features.
        features: File of real features and codes, in place of made-up ones.
        batch: Images of a commit while a store is filled.
        queries: Searches of each way.
        k: Hits.
        efforts: Efforts to try.
        stages: What to measure, of `STAGES`.
        peers: Whether faiss is measured too.
        peers_n: Images on which indexes of floats are measured.
        rounds: Parts of the queries, in which the ways take turns.
        plot: Folder for curves.
    """

    n: Sequence[int]
    bits: Sequence[int]
    dims: int
    features: Path | None
    batch: int
    queries: int
    k: int
    efforts: Sequence[int]
    stages: Sequence[str]
    peers: bool
    peers_n: int
    rounds: int
    plot: Path | None

    @property
    def effort(self) -> int:
        """The one effort for figures that need one."""
        return DEFAULT_EFFORT if DEFAULT_EFFORT in self.efforts else self.efforts[0]


def bench_search(plan: Plan, console: Console) -> None:
    """Measure every size and length of code, and put out one object per way."""
    if plan.peers and not peers.can_compare():
        console.note(peers.MISSING)
    everything: list[Figures] = []
    for bits in plan.bits:
        for n in plan.n:
            # What is measured at --peers-n does not depend on n: once, with the last.
            for told in _measured(plan, n, bits, console, last=n == plan.n[-1]):
                everything.append(told)
                if console.json:
                    put(console, "search", told)
    if not console.json:
        console.result(everything, table(everything, facts()))
    if plan.plot is not None:
        write_curves(everything, plan.plot, console)


def _measured(plan: Plan, n: int, bits: int, console: Console, *, last: bool) -> Iterator[Figures]:
    collection = _open(plan, n, bits, console)
    yield from _described(plan, collection, _all_stages(plan, collection, console))
    compared = _for_floats(plan, collection, console) if last else None
    if compared is not None and compared.source.n != collection.source.n:
        memory = _searched(plan, compared)["searched_mb"]
        ways = _take_turns(plan, compared, console, [WHOLE], memory, floats=True)
        yield from _described(plan, compared, ways)


def _open(plan: Plan, n: int, bits: int, console: Console) -> Collection:
    source: Source
    if plan.features is not None:
        source = FromFile(plan.features, n=n, bits=bits)
    else:
        source = Synthetic(n=n, dims=plan.dims, bits=bits)
    cache = Settings.load().cache_dir / "bench"
    return open_collection(source, cache, console, batch=plan.batch)


def _for_floats(plan: Plan, collection: Collection, console: Console) -> Collection | None:
    """Return the collection on which indexes of floats are measured, if any can be."""
    if WHOLE not in plan.stages or not plan.peers or not peers.can_compare():
        return None
    n = min(plan.peers_n, collection.source.n)
    if not peers.fit(n, collection.source.dims):
        console.note(
            f"Indexes of {n:,} features of {collection.source.dims} floats take more than "
            f"{peers.MOST_BYTES >> 30} GB: faiss on floats is left out; lower --peers-n."
        )
        return None
    alike = n == collection.source.n
    return collection if alike else _open(plan, n, collection.source.bits, console)


def _described(
    plan: Plan, collection: Collection, measured: Iterator[Figures]
) -> Iterator[Figures]:
    source = collection.source
    for told in measured:
        # The named ones come first, for those who read the lines.
        head = {"way": told["way"], "stage": told["stage"], "n": source.n, "bits": source.bits}
        given = {"dims": source.dims, "k": plan.k, "made_of": source.made_of}
        yield {**head, **given, **_NOT_ALWAYS, **told}


def _all_stages(plan: Plan, collection: Collection, console: Console) -> Iterator[Figures]:
    if BUILD in plan.stages:
        yield _build_figures(collection)
    opened = _searched(plan, collection) if {*SEARCHES, OPEN} & set(plan.stages) else {}
    searches = [stage for stage in SEARCHES if stage in plan.stages]
    if searches:
        n = collection.source.n
        floats = plan.peers_n >= n and peers.fit(n, collection.source.dims)
        memory = opened["searched_mb"]
        yield from _take_turns(plan, collection, console, searches, memory, floats=floats)
    if OPEN in plan.stages:
        yield search_states.opening(collection, opened, k=plan.k, effort=plan.effort)
    if COLD in plan.stages:
        yield search_states.cold(collection, k=plan.k, effort=plan.effort)
    yield from _written(plan, collection, console)


def _written(plan: Plan, collection: Collection, console: Console) -> Iterator[Figures]:
    """Measure what changes a store, on a copy of it."""
    if not {INSERT, DELETE, WRITES} & set(plan.stages):
        return
    with ExitStack() as stack:
        with console.step("copying the store, to write to the copy"):
            copy = stack.enter_context(search_states.copied(collection))
        if WRITES in plan.stages:
            yield search_states.while_written(
                collection, copy, k=plan.k, effort=plan.effort, queries=_queries(plan, collection)
            )
        if INSERT in plan.stages:
            yield search_states.durable_batches(collection, copy)
        if DELETE in plan.stages:
            yield from search_states.deletes(collection, copy)


def _build_figures(collection: Collection) -> Figures:
    per_image_ms = rounded(1000 / collection.facts["images_per_s"])
    return {
        "way": OURS,
        "stage": BUILD,
        "p50_ms": per_image_ms,
        "p99_ms": None,
        "per": "image, in bulk",
        **collection.facts,
    }


def _searched(plan: Plan, collection: Collection) -> dict[str, Any]:
    """Return what a fresh process tells that opens the store and searches it."""
    return search_states.searched(
        collection,
        k=plan.k,
        efforts=[effort for effort in plan.efforts if effort < MAX_EFFORT] or plan.efforts,
        queries=min(20, _queries(plan, collection)),
    )


def _queries(plan: Plan, collection: Collection) -> int:
    return min(plan.queries, len(collection.queries.codes))


def _take_turns(
    plan: Plan,
    collection: Collection,
    console: Console,
    stages: Sequence[str],
    memory: dict[str, float],
    *,
    floats: bool,
) -> Iterator[Figures]:
    queries = _queries(plan, collection)
    with console.step(f"finding out what is to be found in {collection.source.n:,}"):
        wanted = [candidates_for(effort, plan.k) or plan.k for effort in plan.efforts]
        truth = Truth(collection, queries, max(wanted))
    with Shard.open_existing(collection.shard) as shard:
        ways = list(
            our_ways(shard, collection.queries, k=plan.k, efforts=plan.efforts, stages=stages)
        )
        for way in ways:
            way.told["memory_mb"] = memory.get(str(way.told["effort"]))
            way.told["memory_of"] = search_states.MEMORY_OF
        ways += _peer_ways(plan, collection, console, stages, floats=floats)
        with console.step(f"searching {collection.source.n:,} images in {len(ways)} ways"):
            known = len(collection.queries.codes)
            shard.warm_up()
            take_turns(ways, queries=queries, known=known, rounds=plan.rounds)
    yield from compare([figures(way, truth, plan.k) for way in ways])


def _peer_ways(
    plan: Plan, collection: Collection, console: Console, stages: Sequence[str], *, floats: bool
) -> list[Way]:
    if not plan.peers or not peers.can_compare():
        return []
    ways: list[Way] = []
    with console.step("building or reading the indexes of faiss"):
        wanted = candidates_for(plan.effort, plan.k)
        if CANDIDATES in stages and wanted is not None:
            ways += peers.code_ways(collection, wanted)
        if WHOLE in stages and floats:
            ways += peers.feature_ways(collection, min(plan.k, collection.source.n))
    return ways
