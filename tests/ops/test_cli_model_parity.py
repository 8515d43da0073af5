import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result

from ops.cli.exits import Exit

Run = Callable[..., Result]
FIELDS = (
    "bundle random real images max_abs_diff max_abs_diff_latent bits bits_differing "
    "bits_near_threshold bits_wrong onnx_images_per_s caffe_images_per_s within_tolerance"
)


def test_the_engines_agree_on_a_bundle_that_comes_with_lookalike(
    pycaffe: ModuleType, run: Run
) -> None:
    done = run("model", "parity", "lite0-20", "--count", 2, "--json")
    assert done.exit_code == Exit.DONE
    found = json.loads(done.stdout)
    assert set(found) == set(FIELDS.split())
    assert (found["random"], found["real"], found["images"]) == (2, 2, 4)
    assert found["bits"] == 4 * 20
    assert found["within_tolerance"]
    assert found["max_abs_diff"] < 1e-3


def test_a_person_reads_whether_they_agree(pycaffe: ModuleType, run: Run) -> None:
    done = run("model", "parity", "lite0-20", "--count", 1)
    assert "lite0-20@" in done.stdout
    assert ": the engines agree" in done.stdout


def test_a_folder_without_images_is_told_of(run: Run, tmp_path: Path) -> None:
    done = run("model", "parity", "lite0-20", "--images", tmp_path)
    assert done.exit_code == Exit.UNAVAILABLE
    assert "holds no images" in done.stderr


@pytest.mark.parametrize("bad", ["nowhere", "--count=0"])
def test_what_cannot_be_meant_is_refused(run: Run, bad: str) -> None:
    bundle = [] if bad == "nowhere" else ["lite0-20"]
    assert run("model", "parity", *bundle, bad).exit_code in (Exit.USAGE, Exit.UNAVAILABLE)
