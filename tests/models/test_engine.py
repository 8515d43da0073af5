import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.bundle import Bundle
from models.engines import open_engine
from models.errors import BundleError, EngineError

MakeBundle = Callable[..., Bundle]


def pictures(count: int, side_px: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, side_px, side_px, 3), np.uint8)


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 33])
def test_a_batch_of_any_size_equals_single_images(make_bundle: MakeBundle, count: int) -> None:
    with open_engine(make_bundle(), threads=2) as engine:
        batch = engine.embed(pictures(count))
        singles = [engine.embed(picture[None]) for picture in pictures(count)]
    assert batch.features.shape == (count, 6)
    assert batch.latent.shape == (count, 12)
    assert batch.codes.shape == (count, 2)
    for row, single in enumerate(singles):
        assert np.array_equal(batch.features[row], single.features[0])
        assert np.array_equal(batch.codes[row], single.codes[0])


def test_a_large_network_runs_more_images_at_a_time_and_says_the_same(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle()
    with open_engine(bundle, threads=1) as engine:
        expected = engine.embed(pictures(33))
    monkeypatch.setattr("models.engine._LARGE_BYTES", bundle.network.stat().st_size)
    with open_engine(bundle, threads=1) as engine:
        sizes: list[int] = []
        run = engine._run
        monkeypatch.setattr(
            engine, "_run", lambda planes: (sizes.append(len(planes)), run(planes))[1]
        )
        found = engine.embed(pictures(33))
    assert sizes == [16, 16, 1]
    assert np.array_equal(found.features, expected.features)
    assert np.array_equal(found.codes, expected.codes)


def test_codes_are_the_latent_values_above_the_threshold(make_bundle: MakeBundle) -> None:
    with open_engine(make_bundle(code_threshold=0.6), threads=1) as engine:
        found = engine.embed(pictures(9))
    assert np.array_equal(np.unpackbits(found.codes, axis=1, count=12), found.latent > 0.6)
    assert not (found.codes[:, 1] & 0b1111).any()
    assert len(np.unique(found.codes, axis=0)) > 1


def test_threads_share_an_engine(make_bundle: MakeBundle) -> None:
    with open_engine(make_bundle(), threads=1) as engine:
        expected = [engine.embed(pictures(count)).features for count in range(1, 9)]
        found: dict[int, NDArray[np.float32]] = {}

        def work(count: int) -> None:
            for _ in range(20):
                found[count] = engine.embed(pictures(count)).features

        threads = [threading.Thread(target=work, args=[count]) for count in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(found[count + 1], rows) for count, rows in enumerate(expected))


def test_a_network_runs_without_a_word_to_its_makers(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import sys; from pathlib import Path; from models.bundle import load_bundle;"
        "from models.engines import open_engine;"
        "open_engine(load_bundle(Path(sys.argv[1])), threads=1)"
    )
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", program, str(make_bundle().path)],
        env=environment,
        check=True,
        timeout=60,
    )
    # Where ONNX Runtime reports its use, it keeps what it will send in a database below HOME.
    assert list(home.rglob("*")) == []


def test_a_closed_engine_says_so(make_bundle: MakeBundle) -> None:
    engine = open_engine(make_bundle(), threads=1)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.embed(pictures(1))


@pytest.mark.parametrize("shape", [(0, 9, 8, 3), (2, 8, 8), (8, 8, 3)])
def test_pixels_of_another_shape_are_refused(
    make_bundle: MakeBundle, shape: tuple[int, ...]
) -> None:
    with (
        open_engine(make_bundle(), threads=1) as engine,
        pytest.raises(ValueError, match="expected uint8 pixels of shape"),
    ):
        engine.embed(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 13}, "'latent_values' has shape"),
        ({"dims": 7}, "'feature' has shape"),
        ({"feature_name": "fc7"}, "no input or output 'fc7'"),
    ],
)
def test_a_network_unlike_its_description_is_refused(
    make_bundle: MakeBundle, change: dict[str, object], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        open_engine(make_bundle(**change), threads=1)


def test_a_file_that_is_no_network_is_an_engine_error(make_bundle: MakeBundle) -> None:
    with pytest.raises(EngineError, match=r"cannot open .*network\.onnx"):
        open_engine(make_bundle(b"not a network"), threads=1)


def test_numbers_that_are_not_finite_are_an_engine_error(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(scale=1e36)
    with (
        open_engine(bundle, threads=1) as engine,
        pytest.raises(EngineError, match="not finite"),
    ):
        engine.embed(pictures(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"engine": "abacus", "threads": 1}, "among onnx"), ({"threads": 0}, "at least 1 thread")],
)
def test_wrong_options_are_refused(
    make_bundle: MakeBundle, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_engine(make_bundle(), **options)  # type: ignore[arg-type]


def test_a_network_without_a_code_layer_gives_features_alone(make_bundle: MakeBundle) -> None:
    with_code = make_bundle()
    plain = dataclasses.replace(with_code, bits=0, latent_name="")
    pixels = pictures(5)
    with open_engine(plain, threads=1) as engine, open_engine(with_code, threads=1) as other:
        found = engine.embed(pixels)
        assert np.array_equal(found.features, other.embed(pixels).features)
    assert (found.latent.shape, found.codes.shape) == ((5, 0), (5, 0))
