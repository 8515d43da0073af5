import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from store import bytes_per_code, hamming, pack, unpack
from store.buckets import CentreBuckets, CodeBuckets, fixed_centres

lengths = st.integers(1, 200)
seeds = st.integers(0, 2**32 - 1)


def random_bits(seed, count, bits):
    return np.random.default_rng(seed).integers(0, 2, (count, bits), dtype=np.uint8)


@given(seeds, lengths)
def test_unpacking_undoes_packing(seed, bits):
    bools = random_bits(seed, 5, bits)
    codes = pack(bools)
    assert codes.shape == (5, bytes_per_code(bits))
    assert (unpack(codes, bits) == bools).all()


def test_the_first_bit_is_the_most_significant():
    assert pack(np.array([[1, 0, 0, 0, 0, 0, 0, 0, 1]])).tolist() == [[128, 128]]


@given(seeds, lengths)
def test_hamming_on_packed_codes_counts_differing_bits(seed, bits):
    bools = random_bits(seed, 6, bits)
    expected = (bools[0] != bools).sum(axis=1)
    assert (hamming(pack(bools)[0], pack(bools)) == expected).all()


@given(seeds, st.integers(1, 24))
def test_short_codes_are_their_own_bucket_key(seed, bits):
    bools = random_bits(seed, 4, bits)
    keys, distances = CodeBuckets(bits).file(pack(bools))
    assert keys.tolist() == [int("".join(map(str, row)), 2) for row in bools]
    assert not distances.any()


@given(seeds, st.integers(25, 150), st.integers(1, 40))
def test_no_code_is_nearer_to_a_query_than_the_bound_of_its_bucket(seed, bits, count):
    codes = pack(random_bits(seed, 40, bits))
    buckets = CentreBuckets(pack(random_bits(seed + 1, count, bits)))
    keys, distances = buckets.file(codes)
    radii = np.array([distances[keys == key].max(initial=0) for key in range(count)])
    query = pack(random_bits(seed + 2, 1, bits))[0]
    reach = buckets.reach(query, np.arange(count), radii)
    assert (hamming(query, codes) >= reach.bounds[keys]).all()


@given(seeds, st.integers(25, 60), st.integers(1, 8))
def test_the_bound_holds_without_knowing_the_radius(seed, bits, count):
    def few_bits(number):
        return pack(np.random.default_rng([seed, number]).random((30, bits)) < 0.1)

    codes, centres, query = few_bits(1), few_bits(2)[:count], few_bits(3)[0]
    buckets = CentreBuckets(centres)
    keys, _ = buckets.file(codes)
    reach = buckets.reach(query, np.arange(count), np.full(count, bits))
    assert (hamming(query, codes) >= reach.bounds[keys]).all()


def test_a_code_half_way_between_two_centres_is_exactly_at_the_bound():
    centres, code = np.array([[0, 0, 0, 0], [15, 0, 0, 0]], np.uint8), np.array([3, 0, 0, 0])
    buckets = CentreBuckets(centres[::-1])
    assert buckets.file(code.astype(np.uint8)[None])[0].tolist() == [0]
    reach = buckets.reach(centres[0], np.array([0]), np.array([32]))
    assert reach.bounds.tolist() == [2]
    assert hamming(centres[0], code.astype(np.uint8)[None]).tolist() == [2]


def test_the_fixed_centres_never_change():
    centres = fixed_centres(27)
    assert centres.shape == (256, 4)
    assert not (centres[:, -1] & 0b11111).any()
    assert centres[1].tolist() == [254, 222, 61, 192]
