import numpy as np
import pytest
from numpy.typing import NDArray

from models.centres import learn_centres


def clusters(seed: int, *, bits: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Four far codes, and 200 codes that differ from one of them in two bits."""
    rng = np.random.default_rng(seed)
    middles = np.zeros((4, bits), np.uint8)
    for row, quarter in enumerate(np.split(np.arange(bits), 4)):
        middles[row, quarter] = 1
    members = middles[rng.integers(0, 4, 200)]
    for row in members:
        row[rng.choice(bits, 2, replace=False)] ^= 1
    return np.packbits(middles, axis=1), np.packbits(members, axis=1)


@pytest.mark.parametrize("bits", [20, 128])
@pytest.mark.parametrize("seed", range(3))
def test_centres_settle_in_the_middle_of_clusters(bits: int, seed: int) -> None:
    middles, members = clusters(seed, bits=bits)
    centres = learn_centres(members, 12, bits=bits, rounds=10, seed=seed)
    distances = np.bitwise_count(members[:, None] ^ centres).sum(2).min(1)
    assert distances.max() <= 2
    assert centres.shape == (12, middles.shape[1])
    assert len(np.unique(centres, axis=0)) == 12


def test_a_round_never_puts_codes_farther_from_their_centres() -> None:
    members = np.random.default_rng(5).integers(0, 256, (300, 4), np.uint8)
    spread = []
    for rounds in range(6):
        centres = learn_centres(members, 8, bits=32, rounds=rounds, seed=0)
        spread.append(int(np.bitwise_count(members[:, None] ^ centres).sum(2).min(1).sum()))
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < spread[0]


def test_the_same_seed_gives_the_same_centres() -> None:
    _, members = clusters(1, bits=128)
    first, second = (learn_centres(members, 5, bits=128, rounds=3, seed=9) for _ in range(2))
    assert np.array_equal(first, second)


def test_more_centres_than_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 different codes, got 4"):
        learn_centres(np.arange(4, dtype=np.uint8)[:, None], 5, bits=8, rounds=1, seed=0)


@pytest.mark.parametrize("bits", [40, 128, 300])
def test_every_centre_is_the_majority_of_the_codes_nearest_to_it(bits: int) -> None:
    """Against the definition, in which nothing is packed or taken in chunks."""
    codes = np.random.default_rng(2).random((150, bits)) < 0.5
    start = learn_centres(np.packbits(codes, axis=1), 3, bits=bits, rounds=0, seed=4)
    centres = np.unpackbits(start, axis=1, count=bits)
    nearest = (codes[:, None] != centres).sum(2).argmin(1)
    groups = [codes[nearest == each] for each in range(3)]
    votes = np.array([2 * group.sum(0) > len(group) for group in groups])
    learned = learn_centres(np.packbits(codes, axis=1), 3, bits=bits, rounds=1, seed=4)
    assert np.array_equal(learned, np.unique(np.packbits(votes, axis=1), axis=0))


def test_learning_ends_when_it_is_told_to() -> None:
    def stop() -> None:
        raise InterruptedError

    _, members = clusters(1, bits=128)
    with pytest.raises(InterruptedError):
        learn_centres(members, 5, bits=128, rounds=3, seed=9, between=stop)
