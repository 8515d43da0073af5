"""Random interleavings of everything a store does, against a dictionary and brute force."""

import shutil
import tempfile

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store_world import assert_same_hits, brute_force, make_id, make_image, make_query, make_spec

from store import Inserted, Shard, hamming, merge

numbers = st.integers(0, 30)
origins = st.sampled_from(["first", "second", "third"])
deliveries = st.lists(st.tuples(numbers, origins), min_size=1, max_size=12)


class StoreMachine(RuleBasedStateMachine):
    """`model` maps the number of each stored image to its origin and its sources."""

    bits = 20
    metric = "cosine"
    centres = None

    @initialize()
    def create(self):
        self.folder = tempfile.mkdtemp()
        self.model = {}
        self.open()

    def open(self):
        spec = make_spec(self.bits, metric=self.metric, centres=self.centres)
        self.shard = Shard.open(self.folder, spec, map_bytes=1 << 16)

    def image(self, number, origin="first"):
        return make_image(number, self.bits, origin=origin, source=f"{origin}/{number}")

    @rule(batch=deliveries)
    def insert(self, batch):
        expected = []
        for number, origin in batch:
            first, sources = self.model.setdefault(number, (origin, [f"{origin}/{number}"]))
            if f"{origin}/{number}" not in sources:
                sources.append(f"{origin}/{number}")
            expected.append(Inserted(make_id(number), created=first == origin))
        assert self.shard.insert([self.image(*delivery) for delivery in batch]) == expected

    @rule(chosen=st.lists(numbers, max_size=8))
    def delete(self, chosen):
        expected = [self.model.pop(number, None) is not None for number in chosen]
        assert self.shard.delete([make_id(number) for number in chosen]) == expected

    @rule(number=numbers)
    def search_everything(self, number):
        query = make_query(self.image(number), k=100)
        answer = self.shard.search(query)
        stored = [self.image(other) for other in self.model]
        assert_same_hits(self.shard.hits(answer), brute_force(self.shard, stored, query))
        assert answer.complete

    @rule(number=numbers, candidates=st.integers(1, 40), groups=st.integers(1, 4))
    def search_some(self, number, candidates, groups):
        query = make_query(self.image(number), k=candidates, candidates=candidates)
        parts = [self.shard.search(query, group=group, groups=groups) for group in range(groups)]
        answer = merge(parts, candidates)
        assert answer == self.shard.search(query)
        compared = set(answer.names())
        assert len(compared) == min(candidates, len(self.model))
        for other in self.model:
            code = self.image(other).code
            if hamming(query.code, code[None])[0] <= answer.radius:
                assert make_id(other) in compared

    @rule()
    def reopen(self):
        self.shard.close()
        self.open()

    @invariant()
    def holds_what_the_model_holds(self):
        assert self.shard.count() == len(self.model)
        records = {image.id: image for image in self.shard.recent(100)}
        assert records.keys() == {make_id(number) for number in self.model}
        for number, (origin, sources) in self.model.items():
            record = records[make_id(number)]
            assert (record.origin, list(record.sources)) == (origin, sources)

    def teardown(self):
        if hasattr(self, "shard"):
            assert self.shard.check().problems == ()
            self.shard.close()
            shutil.rmtree(self.folder)


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

FEW = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestShortCodes.settings = TestLongCodes.settings = FEW
TestOddCodes.settings = TestLearnedCentres.settings = FEW
