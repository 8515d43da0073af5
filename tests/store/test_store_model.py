"""Random interleavings of everything a store does, against a dictionary and brute force."""

import shutil
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from store_world import assert_same_hits, brute_force, make_id, make_image, make_query, make_spec

from ops.drill.small import small_segments
from store import Filter, Inserted, Shard, hamming, merge

EPOCH = 1_700_000_000
WORDS = ["red", "green", "blue", "grün"]

numbers = st.integers(0, 49)
origins = st.sampled_from(["first", "second", "third"])
labels = st.lists(st.sampled_from(WORDS), max_size=3).map(tuple)
deliveries = st.lists(st.tuples(numbers, origins, labels), min_size=1, max_size=12)
moments = st.none() | st.floats(EPOCH - 1, EPOCH + 51)
filters = st.none() | st.builds(
    Filter,
    labels=st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=2).map(tuple),
    source=st.sampled_from(["", "", "first/", "second/1", "third/2", "nowhere"]),
    since=moments,
    until=moments,
)
candidate_counts = st.integers(1, 5) | st.integers(1, 60)
distances = st.none() | st.floats(0, 3)
centre_seeds = st.tuples(st.integers(0, 3), st.integers(1, 12))


class Crash(Exception):
    """Stands for whatever keeps a transaction from being committed."""


@dataclass
class Stored:
    """What the model knows of an image."""

    number: int
    origin: str
    sources: list[str]
    labels: list[str]

    def passes(self, wanted):
        """Whether a filter lets it pass; whole seconds count."""
        added = EPOCH + self.number
        return wanted is None or (
            (not wanted.labels or bool(set(wanted.labels) & set(self.labels)))
            and any(source.startswith(wanted.source) for source in self.sources)
            and (wanted.since is None or added >= int(wanted.since))
            and (wanted.until is None or added < int(wanted.until))
        )


class StoreMachine(RuleBasedStateMachine):
    """`model` maps the number of each stored image to what is known of it."""

    bits = 20
    metric = "cosine"
    centres = None

    def __init__(self):
        super().__init__()
        self.undo = ExitStack()
        self.undo.enter_context(small_segments(8))
        self.folder = tempfile.mkdtemp()
        self.undo.callback(shutil.rmtree, self.folder)

    @initialize(count=st.integers(0, 50), dead=st.sets(numbers, max_size=10))
    def create(self, count, dead):
        """Begin with some images, so that there are segments to compact and buckets to skip."""
        self.model = {}
        self.answers = []
        self.open()
        if count:
            self.insert([(number, "first", tuple(WORDS[: number % 3])) for number in range(count)])
        self.delete(sorted(dead))

    def open(self):
        spec = make_spec(self.bits, metric=self.metric, centres=self.centres)
        self.shard = Shard.open(self.folder, spec, map_bytes=1 << 16)

    def image(self, number, origin="first", labels=()):
        source = f"{origin}/{number}"
        return make_image(number, self.bits, origin=origin, source=source, labels=labels)

    def passing(self, wanted):
        return [stored for stored in self.model.values() if stored.passes(wanted)]

    @rule(batch=deliveries)
    def insert(self, batch):
        expected = [self.deliver(*delivery) for delivery in batch]
        assert self.shard.insert([self.image(*delivery) for delivery in batch]) == expected

    def deliver(self, number, origin, labels):
        known = self.model.setdefault(number, Stored(number, origin, [], []))
        if known.origin != origin or not known.sources:
            source = f"{origin}/{number}"
            known.sources += [source] if source not in known.sources else []
            known.labels += [each for each in dict.fromkeys(labels) if each not in known.labels]
        return Inserted(make_id(number), created=known.origin == origin)

    @rule(chosen=st.lists(numbers, max_size=8))
    def delete(self, chosen):
        expected = [self.model.pop(number, None) is not None for number in chosen]
        assert self.shard.delete([make_id(number) for number in chosen]) == expected

    @rule(number=numbers, wanted=filters, weight=st.sampled_from([0.0, 0.7]))
    def search_everything(self, number, wanted, weight):
        query = make_query(self.image(number), k=100, code_weight=weight, filter=wanted)
        answer = self.shard.search(query)
        stored = [self.image(each.number) for each in self.passing(wanted)]
        assert_same_hits(self.shard.hits(answer), brute_force(self.shard, stored, query))
        assert (answer.complete, answer.radius) == (True, self.bits)
        assert answer.candidates == answer.reranked == len(stored)
        self.answers.append(answer)

    @rule(number=numbers, wanted=filters, candidates=candidate_counts, groups=st.integers(1, 4))
    def search_some(self, number, wanted, candidates, groups):
        query = make_query(self.image(number), k=candidates, candidates=candidates, filter=wanted)
        parts = [self.shard.search(query, group=group, groups=groups) for group in range(groups)]
        answer = merge(parts, candidates)
        assert answer == self.shard.search(query)
        compared = set(answer.names())
        passing = {make_id(each.number): each.number for each in self.passing(wanted)}
        assert len(compared) == answer.reranked == min(candidates, len(passing))
        assert compared <= passing.keys()
        assert answer.reranked <= answer.candidates <= len(passing)
        assert not answer.complete or len(compared) == len(passing)
        for identity, other in passing.items():
            code = self.image(other).code
            assert identity in compared or hamming(query.code, code[None])[0] > answer.radius

    @rule(number=numbers, candidates=st.none() | candidate_counts, limit=distances)
    def search_up_to_a_distance(self, number, candidates, limit):
        options = {"k": 10, "candidates": candidates}
        query = make_query(self.image(number), **options, max_distance=limit)
        free = self.shard.search(make_query(self.image(number), **options))
        near = len(free) if limit is None else int((free.distances <= limit).sum())
        answer = self.shard.search(query)
        assert answer.names() == free.names()[:near]
        assert (answer.radius, answer.reranked) == (free.radius, free.reranked)

    @rule(chosen=st.lists(st.tuples(numbers, filters), max_size=5), candidates=candidate_counts)
    def search_many_at_once(self, chosen, candidates):
        queries = [
            make_query(self.image(number), k=5, candidates=candidates, filter=wanted)
            for number, wanted in chosen
        ]
        expected = [self.shard.search(query) for query in queries]
        assert self.shard.search_many(queries) == expected

    @precondition(lambda self: self.answers)
    @rule()
    def look_at_an_older_answer(self):
        answer = self.answers.pop(0)
        there = {make_id(number) for number in self.model}
        hits = self.shard.hits(answer)
        assert [hit.id for hit in hits] == [name for name in answer.names() if name in there]

    @rule(share=st.sampled_from([0.0, 0.25, 0.7]), most=st.none() | st.integers(1, 2))
    def compact(self, share, most):
        self.shard.compact(dead_share=share, most=most)

    @rule()
    def compact_everything(self):
        self.shard.compact(dead_share=0)
        used = self.shard.stats().rows_used
        last = used % 8 or 8
        assert self.shard.stats().dead_slots <= last

    @precondition(lambda self: self.bits > 24)
    @rule(seed=centre_seeds, steps=st.integers(0, 4))
    def begin_retraining(self, seed, steps):
        self.shard.begin_retraining(self.other_centres(*seed))
        for _ in range(steps):
            self.shard.retrain_step(9)

    def other_centres(self, seed, count):
        codes = np.random.default_rng(seed).integers(0, 256, (count, -(-self.bits // 8)), np.uint8)
        codes[:, -1] &= 0xFF ^ ((1 << -self.bits % 8) - 1)
        return codes

    @precondition(lambda self: self.bits > 24)
    @rule(step=st.integers(1, 20))
    def retrain_a_little(self, step):
        self.shard.retrain_step(step)

    @precondition(lambda self: self.bits > 24)
    @rule()
    def retrain_to_the_end(self):
        self.shard.retrain(step=5)
        assert self.shard.retraining() is None

    @rule(
        batch=deliveries,
        chosen=st.lists(numbers, max_size=8),
        seed=centre_seeds,
        what=st.sampled_from(["insert", "delete", "compact", "begin", "step"]),
        reopened=st.booleans(),
    )
    def crash(self, batch, chosen, seed, what, reopened):
        """Do everything up to the commit. Features are in their files by then."""
        steps = {
            "insert": lambda: self.shard.insert([self.image(*delivery) for delivery in batch]),
            "delete": lambda: self.shard.delete([make_id(number) for number in chosen]),
            "compact": lambda: self.shard.compact(dead_share=0),
            "begin": lambda: self.shard.begin_retraining(self.other_centres(*seed)),
            "step": lambda: self.shard.retrain_step(3),
        }
        if what in ("begin", "step") and self.bits <= 24:
            return
        with uncommitted(self.shard), suppress(Crash):
            steps[what]()
        if reopened:
            self.reopen()

    @rule()
    def reopen(self):
        self.shard.close()
        self.open()

    @invariant()
    def holds_what_the_model_holds(self):
        assert self.shard.count() == len(self.model)
        records = {image.id: image for image in self.shard.recent(100)}
        assert records.keys() == {make_id(number) for number in self.model}
        for number, known in self.model.items():
            record = records[make_id(number)]
            assert record.origin == known.origin
            assert (list(record.sources), list(record.labels)) == (known.sources, known.labels)

    @invariant()
    def counts_the_labels_that_the_model_has(self):
        found = [label for known in self.model.values() for label in known.labels]
        assert self.shard.labels() == {label: found.count(label) for label in set(found)}

    def teardown(self):
        with self.undo:
            if hasattr(self, "shard"):
                assert self.shard.check().problems == ()
                self.shard.close()


class uncommitted:  # noqa: N801 - reads as a word
    """In it every transaction does its work and fails to commit."""

    def __init__(self, shard):
        self.shard = shard

    def __enter__(self):
        write = self.shard._write

        def fail(work):
            def work_and_fail(store):
                work(store)
                raise Crash

            return write(work_and_fail)

        self.shard._write = fail

    def __exit__(self, *_):
        del self.shard._write


class LongCodes(StoreMachine):
    bits = 128
    metric = "l2"


class OddCodes(StoreMachine):
    bits = 12


class LearnedCentres(StoreMachine):
    bits = 33
    centres = np.random.default_rng(4).integers(0, 256, (5, 5), dtype=np.uint8) & 0x80


TestShortCodes = StoreMachine.TestCase
TestLongCodes = LongCodes.TestCase
TestOddCodes = OddCodes.TestCase
TestLearnedCentres = LearnedCentres.TestCase

FEW = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestShortCodes.settings = TestLongCodes.settings = FEW
TestOddCodes.settings = TestLearnedCentres.settings = FEW
