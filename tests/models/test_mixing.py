"""Pictures that are pasted into each other, and what they are said to show."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
mixing = pytest.importorskip("models.training.mixing")

COUNT, HEIGHT, WIDTH = 5, 12, 20


def mixed(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mix pictures that are all of one value, each of a class of its own."""
    images = torch.arange(COUNT).float()[:, None, None, None].expand(COUNT, 3, HEIGHT, WIDTH)
    kept = images.clone()
    found, targets = mixing.cut_and_mix(images, torch.eye(COUNT), np.random.default_rng(seed))
    torch.testing.assert_close(images, kept)
    return found.numpy(), targets.numpy()


@pytest.mark.parametrize("seed", range(40))
def test_a_target_says_how_much_of_each_picture_there_is(seed: int) -> None:
    found, targets = mixed(seed)
    shares = [[(picture == number).mean() for number in range(COUNT)] for picture in found]
    np.testing.assert_allclose(targets, shares, atol=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_one_box_is_pasted_at_its_own_place(seed: int) -> None:
    found, _ = mixed(seed)
    changed = (found != np.arange(COUNT)[:, None, None, None]).any(axis=(0, 1))
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    if len(rows):
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_boxes_are_of_all_sizes_and_come_to_every_edge() -> None:
    pasted = np.array([1 - mixed(seed)[1].max(1).min() for seed in range(300)])
    assert 0.2 < pasted.mean() < 0.4
    assert pasted.min() < 0.02
    corners = [
        (mixed(seed)[0] != np.arange(COUNT)[:, None, None, None]).any((0, 1))
        for seed in range(300)
    ]
    for place in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert any(corner[place] for corner in corners)


def test_the_same_draw_mixes_alike() -> None:
    for first, second in zip(mixed(3), mixed(3), strict=True):
        np.testing.assert_array_equal(first, second)
