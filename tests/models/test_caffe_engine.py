import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import threadpoolctl
from numpy.typing import NDArray

from models.bundle import Bundle
from models.caffe.from_onnx import CaffeForm
from models.engines import open_engine
from models.errors import BundleError, EngineError

MakeBundle = Callable[..., Bundle]


def pictures(count: int, side_px: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, side_px, side_px, 3), np.uint8)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 11])
def test_caffe_says_what_onnx_runtime_says(
    pycaffe: ModuleType, make_caffe_bundle: MakeBundle, count: int
) -> None:
    bundle = make_caffe_bundle()
    found = []
    for engine in ("onnx", "caffe"):
        with open_engine(bundle, engine=engine, threads=1) as opened:
            found.append(opened.embed(pictures(count)))
    onnx, caffe = found
    assert caffe.features.shape == (count, 6)
    assert caffe.codes.shape == (count, 2)
    assert np.allclose(onnx.features, caffe.features, rtol=0, atol=1e-5)
    assert np.allclose(onnx.latent, caffe.latent, rtol=0, atol=1e-5)


def test_batches_of_growing_and_shrinking_size_equal_single_images(
    pycaffe: ModuleType, make_caffe_bundle: MakeBundle
) -> None:
    with open_engine(make_caffe_bundle(), engine="caffe", threads=1) as engine:
        singles = [engine.embed(picture[None]).features[0] for picture in pictures(7)]
        for count in (3, 7, 1, 2):
            # OpenBLAS may sum in another order for another size.
            found = engine.embed(pictures(7)[:count]).features
            assert np.allclose(found, singles[:count], rtol=1e-5, atol=1e-6)


def test_threads_share_a_caffe_engine(pycaffe: ModuleType, make_caffe_bundle: MakeBundle) -> None:
    found: dict[int, NDArray[np.float32]] = {}
    with open_engine(make_caffe_bundle(), engine="caffe", threads=1) as engine:
        expected = [engine.embed(pictures(count)).features for count in range(1, 7)]

        def work(count: int) -> None:
            for _ in range(20):
                found[count] = engine.embed(pictures(count)).features

        threads = [threading.Thread(target=work, args=[count]) for count in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(found[count + 1], rows) for count, rows in enumerate(expected))


def test_results_outlive_the_engine(pycaffe: ModuleType, make_caffe_bundle: MakeBundle) -> None:
    with open_engine(make_caffe_bundle(), engine="caffe", threads=1) as engine:
        first = engine.embed(pictures(2))
        copy = first.features.copy()
        engine.embed(pictures(3))
    assert np.array_equal(first.features, copy)


def test_a_closed_caffe_engine_says_so(pycaffe: ModuleType, make_caffe_bundle: MakeBundle) -> None:
    engine = open_engine(make_caffe_bundle(), engine="caffe", threads=1)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.embed(pictures(1))


@pytest.mark.parametrize("threads", [1, 2])
def test_caffe_multiplies_with_so_many_threads(
    pycaffe: ModuleType, make_caffe_bundle: MakeBundle, threads: int
) -> None:
    before = {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    with open_engine(make_caffe_bundle(), engine="caffe", threads=threads) as engine:
        engine.embed(pictures(1))
        after = {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    ours = [path for path in after if "brocolli_caffe" in path]
    assert [after.pop(path) for path in ours] == [threads]
    assert after.items() <= before.items()


def test_two_networks_live_side_by_side(
    pycaffe: ModuleType, make_caffe_bundle: MakeBundle, lite_bundle: Bundle
) -> None:
    with (
        open_engine(make_caffe_bundle(), engine="caffe", threads=1) as one,
        open_engine(lite_bundle, engine="caffe", threads=1) as other,
    ):
        first = one.embed(pictures(2)).features
        assert other.embed(pictures(1, 224)).features.shape == (1, 1280)
        assert np.array_equal(one.embed(pictures(2)).features, first)


def test_caffe_keeps_its_log_to_itself(pycaffe: ModuleType, make_caffe_bundle: MakeBundle) -> None:
    program = (
        "import sys; from pathlib import Path; from models.bundle import load_bundle;"
        "from models.engines import open_engine;"
        "open_engine(load_bundle(Path(sys.argv[1])), engine='caffe', threads=1)"
    )
    command = [sys.executable, "-c", program, str(make_caffe_bundle().path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout + done.stderr == ""


def without_its_end(form: CaffeForm) -> tuple[bytes, bytes]:
    return form.prototxt, form.weights[: len(form.weights) // 2]


def with_a_layer_nobody_knows(form: CaffeForm) -> tuple[bytes, bytes]:
    return form.prototxt.replace(b'"Sigmoid"', b'"Quantum"'), form.weights


def with_more_outputs(form: CaffeForm) -> tuple[bytes, bytes]:
    return form.prototxt.replace(b"num_output: 6", b"num_output: 8"), form.weights


def with_a_blob_that_is_not_there(form: CaffeForm) -> tuple[bytes, bytes]:
    last = form.prototxt.rindex(b"bottom: ")
    return form.prototxt[:last] + b'bottom: "nowhere"\n}\n', form.weights


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (without_its_end, r"bundle/weights\.caffemodel|parse"),
        (with_a_layer_nobody_knows, "Unknown layer type: Quantum"),
        (with_more_outputs, "shape mismatch"),
        (with_a_blob_that_is_not_there, "Unknown bottom blob 'nowhere'"),
    ],
)
def test_what_would_end_the_process_is_an_error_with_caffes_reason(
    pycaffe: ModuleType,
    make_caffe_bundle: MakeBundle,
    edit: Callable[[CaffeForm], tuple[bytes, bytes]],
    reason: str,
) -> None:
    with pytest.raises(EngineError, match=rf"deploy\.prototxt .*{reason}.*; correct the files"):
        open_engine(make_caffe_bundle(edit=edit), engine="caffe", threads=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blobs": {"feature_name": "fc7"}}, "no blob 'fc7' .it has"),
        ({"bits": 13}, "holds 12 values an image, bundle.toml says 13"),
        ({"dims": 7}, "holds 6 values an image, bundle.toml says 7"),
    ],
)
def test_caffe_files_unlike_their_description_are_refused(
    pycaffe: ModuleType, make_caffe_bundle: MakeBundle, change: dict[str, object], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        open_engine(make_caffe_bundle(**change), engine="caffe", threads=1)


def test_a_bundle_without_caffe_files_is_told_of(
    pycaffe: ModuleType, make_bundle: MakeBundle
) -> None:
    with pytest.raises(EngineError, match=r"bundle tiny has no Caffe form .*engine onnx"):
        open_engine(make_bundle(), engine="caffe", threads=1)


def test_files_that_went_away_are_told_of(
    pycaffe: ModuleType, make_caffe_bundle: MakeBundle
) -> None:
    bundle = make_caffe_bundle()
    (bundle.path / "weights.caffemodel").unlink()
    with pytest.raises(BundleError, match=r"cannot read .*weights\.caffemodel.*get it again"):
        open_engine(bundle, engine="caffe", threads=1)


def test_a_gpu_that_caffe_was_built_without_is_an_error(
    pycaffe: ModuleType, make_caffe_bundle: MakeBundle
) -> None:
    with pytest.raises(EngineError, match="on the gpu: Cannot use GPU in CPU-only Caffe"):
        open_engine(make_caffe_bundle(), engine="caffe", threads=1, device="gpu")


def test_onnx_runtime_takes_the_cpu_only(make_bundle: MakeBundle) -> None:
    with pytest.raises(EngineError, match="onnx runs on the CPU only; use the device cpu"):
        open_engine(make_bundle(), threads=1, device="gpu")


@pytest.mark.parametrize("options", [{"engine": "abacus"}, {"device": "abacus"}])
def test_engines_and_devices_that_do_not_exist_are_refused(
    make_bundle: MakeBundle, options: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"among .*, got 'abacus'"):
        open_engine(make_bundle(), threads=1, **options)  # type: ignore[arg-type]


def test_without_pycaffe_the_remedy_is_named(
    make_caffe_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "caffe", None)
    with pytest.raises(EngineError, match=r"pycaffe is not installed .*run `make caffe`"):
        open_engine(make_caffe_bundle(), engine="caffe", threads=1)


def test_a_folder_named_caffe_in_the_way_does_no_harm(
    pycaffe: ModuleType,
    make_caffe_bundle: MakeBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "caffe").mkdir()
    (tmp_path / "caffe" / "__init__.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    with open_engine(make_caffe_bundle(), engine="caffe", threads=1) as engine:
        assert len(engine.embed(pictures(1)).codes) == 1
