"""``model import`` and ``model topology``, as a user would try them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.caffe.write import NetWriter
from ops.cli.exits import Exit
from tests.ops.conftest import Run, objects

SIDE_PX = 12


def write_caffe(folder: Path, *, sigmoid: bool = True) -> tuple[Path, Path]:
    """Write a network of two fully connected layers, weights all alike."""
    net = NetWriter("tiny")
    net.input("data", (1, 3, SIDE_PX, SIDE_PX))
    net.layer("fc7", "InnerProduct", ["data"]).inner_product_param.num_output = 4
    net.layer("fc8", "InnerProduct", ["fc7"]).inner_product_param.num_output = 8
    if sigmoid:
        net.layer("fc8_encode", "Sigmoid", ["fc8"])
    rng = np.random.default_rng(0)
    for name, shape in (("fc7", (4, 3 * SIDE_PX**2)), ("fc8", (8, 4))):
        net.blobs[name] = [rng.standard_normal(shape, np.float32), np.ones(shape[0], np.float32)]
    paths = folder / "net.prototxt", folder / "net.caffemodel"
    paths[0].write_text(net.prototxt())
    paths[1].write_bytes(net.caffemodel())
    return paths


def arguments(files: tuple[Path, Path], name: str, *more: object) -> list[object]:
    prototxt, weights = files
    chosen = ["--prototxt", prototxt, "--weights", weights, "--feature", "fc7"]
    return ["model", "import", *chosen, "--code", "fc8_encode", "--name", name, *more]


def test_an_imported_bundle_is_used_by_its_name(run: Run, photos: Path, tmp_path: Path) -> None:
    mean = tmp_path / "mean.npy"
    np.save(mean, np.full((3, 20, 20), 100.0))
    env = {"LOOKALIKE_BUNDLES_DIR": str(tmp_path / "bundles")}
    files = write_caffe(tmp_path)
    args = arguments(files, "mine", "--mean", mean, "--resize", "20", "--json")
    (made,) = objects(run(*args, env=env))
    assert made["path"] == str(tmp_path / "bundles" / "mine")
    assert (made["bits"], made["dims"], made["source"]) == (8, 4, "caffe")
    listed = {one["name"] for one in objects(run("model", "list", "--json", env=env))}
    assert "mine" in listed
    (info,) = objects(run("model", "info", "--bundle", "mine", "--json", env=env))
    assert (info["id"], info["metric"]) == (made["id"], "l2")
    assert (info["source"], info["engines"]) == ("caffe", "onnx caffe")
    photo = next(photos.iterdir())
    done = run("model", "extract", photo, "--bundle", "mine", "--json", env=env)
    assert len(objects(done)[0]["code"]) == 2


def test_a_bundle_may_be_put_anywhere(run: Run, tmp_path: Path) -> None:
    files = write_caffe(tmp_path)
    result = run(*arguments(files, "mine", "--out", tmp_path / "here", "--mean", "1,2,3"))
    assert result.exit_code == 0, result.stderr
    assert f"use it with --bundle {tmp_path / 'here'}" in result.stdout
    assert run("model", "info", "--bundle", tmp_path / "here").exit_code == 0


def test_wrong_files_are_told_of_and_leave_nothing(run: Run, tmp_path: Path) -> None:
    files = write_caffe(tmp_path, sigmoid=False)
    prototxt, weights = files
    chosen = ["--prototxt", prototxt, "--weights", weights, "--feature", "fc7"]
    args = [*chosen, "--code", "fc8", "--name", "mine", "--out", tmp_path / "out"]
    result = run("model", "import", *args)
    assert result.exit_code == Exit.UNAVAILABLE
    assert "no sigmoid follows" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.caffemodel", "net.prototxt"]


def test_without_a_code_it_says_how_to_learn_one(run: Run, tmp_path: Path) -> None:
    prototxt, weights = write_caffe(tmp_path)
    chosen = ["--prototxt", prototxt, "--weights", weights, "--feature", "fc7"]
    result = run("model", "import", *chosen, "--name", "plain", "--out", tmp_path / "plain")
    assert "no code; learn a code with `lookalike train --base" in result.stdout
    refused = run("model", "info", "--bundle", tmp_path / "plain")
    assert refused.exit_code == Exit.UNAVAILABLE
    assert "lookalike train --base" in refused.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "give --prototxt with --weights, or --onnx"),
        (["--prototxt", "P"], "give --prototxt with --weights"),
        (["--prototxt", "P", "--weights", "P", "--onnx", "P"], "and not both"),
        (["--prototxt", "P", "--weights", "P", "--input", "data"], "--input is for --onnx"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(
    run: Run, tmp_path: Path, args: list[str], told: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    given = [str(file) if arg == "P" else arg for arg in args]
    result = run("model", "import", "--feature", "f", "--name", "n", *given)
    assert result.exit_code == Exit.USAGE
    assert told in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--mean", "1,2", "--mean 1,2 is not one or three finite numbers"),
        ("--mean", "nan", "--mean nan is not one or three finite numbers"),
        ("--mean", "absent.npy", "--mean absent.npy is neither a file nor numbers"),
        ("--std", "0", "--std 0 is not one or three positive finite numbers"),
        ("--std", "inf", "--std inf is not one or three positive finite numbers"),
        ("--std", "1,2,3", "Give --scale in place of --std"),
        *(
            ("--scale", value, f"Invalid value for '--scale': {value} is not a positive finite")
            for value in ("0", "-1", "nan", "inf", "1e99", "1e-60")
        ),
        ("--scale", "wide", "'--scale': 'wide' is not a valid float"),
        ("--resize", "10", "Choose a larger --resize"),
        ("--crop", "99", "leave --crop out"),
        ("--name", "Bad Name", "the name is 'Bad Name'"),
        ("--name", "lite0-128", "Choose another name"),
        ("--feature", "fc9", "has no layer or blob 'fc9'. Did you mean"),
        ("--code", "fc9", "has no layer or blob 'fc9'. Did you mean"),
        ("--prototxt", "absent", "'absent' does not exist"),
        ("--weights", "absent", "'absent' does not exist"),
        ("--onnx", "absent", "'absent' does not exist"),
        ("--input", "data", "--input is for --onnx"),
    ],
)
def test_options_that_cannot_be_used_are_named(
    run: Run, tmp_path: Path, option: str, value: str, told: str
) -> None:
    files = write_caffe(tmp_path)
    result = run(*arguments(files, "mine", "--out", tmp_path / "out", option, value))
    assert result.exit_code == Exit.USAGE, result.stderr
    assert told in result.stderr
    assert "?." not in result.stderr
    assert not (tmp_path / "out").exists()


def test_one_mean_is_that_of_all_channels_and_work_is_told(run: Run, tmp_path: Path) -> None:
    args = arguments(write_caffe(tmp_path), "mine", "--mean", "123", "--json")
    result = run(*args, "--out", tmp_path / "out")
    assert len(objects(result)) == 1
    assert "mean = [123.0, 123.0, 123.0]" in (tmp_path / "out" / "bundle.toml").read_text()
    for step in ("Checking the Caffe files and copying them …", "Making it ready for use …"):
        assert step in result.stderr


@pytest.mark.parametrize("name", ["net.prototxt", "net.json"])
def test_a_file_that_is_no_onnx_network_is_told_in_a_line(
    run: Run, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_text("{}\n" * 1000)
    options = ["--feature", "f", "--name", "n", "--out", tmp_path / "out"]
    result = run("model", "import", "--onnx", path, *options)
    assert result.exit_code == Exit.UNAVAILABLE
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"Error: {path} is not an ONNX network")
    assert len(last) < len(str(path)) + 200


def test_a_topology_is_three_files(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "net"
    result = run("model", "topology", "alexnet", "--bits", "12", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    names = ["deploy.prototxt", "train_val.prototxt", "solver.prototxt"]
    assert [Path(one["path"]).name for one in objects(result)] == names
    assert "num_output: 12" in (out / "deploy.prototxt").read_text()


def test_a_topology_has_8_to_256_bits(run: Run, tmp_path: Path) -> None:
    result = run("model", "topology", "caffenet", "--bits", "7", "--out", tmp_path)
    assert result.exit_code == Exit.USAGE
    assert "8<=x<=256" in result.stderr


def test_a_topology_says_where_it_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("model", "topology", "caffenet", "--out", tmp_path / "file" / "net")
    assert result.exit_code == Exit.UNAVAILABLE
    assert "Choose another --out" in result.stderr


def test_a_topology_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "deploy.prototxt"
    kept.write_text("mine")
    result = run("model", "topology", "caffenet", "--out", tmp_path)
    assert result.exit_code == Exit.UNAVAILABLE
    assert "is there already. Delete it, or choose another --out" in result.stderr
    assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_text() == "mine"
