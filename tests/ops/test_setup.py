"""A fresh install gets what was tested, and the set-up says what it can do."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
PHOTOS = ROOT / "ops/demo/photos"
INSTALLED = ("dev", "postgresql", "evaluate", "caffe", "train", "lite2", "bench")


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.partition("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in pins}


def _requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in INSTALLED:
        listed += project["project"]["optional-dependencies"][extra]
    return [Requirement(each) for each in listed]


@pytest.mark.parametrize("requirement", _requirements(), ids=lambda each: each.name)
def test_every_dependency_is_pinned_to_a_version_it_allows(requirement: Requirement) -> None:
    assert requirement.specifier.contains(_pins()[canonicalize_name(requirement.name)])


def test_the_constraints_are_versions_and_nothing_else() -> None:
    comment, *lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert comment.startswith("# ")
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert "lookalike" not in _pins()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_every_target() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert {"setup", "demo", "test", "lint"} <= listed
    assert listed == targets - {"python"}


def test_every_demo_photo_is_attributed_and_nothing_else_is() -> None:
    table = (ROOT / "ops/demo/ATTRIBUTION.md").read_text()
    attributed = re.findall(r"^\| ([\w-]+/[\w-]+\.jpg) \| [^|]+ \| [^|]+ \| ", table, re.MULTILINE)
    assert sorted(attributed) == sorted(
        str(path.relative_to(PHOTOS)) for path in PHOTOS.rglob("*") if path.is_file()
    )


def test_every_licence_named_for_the_demo_photos_is_there_in_full() -> None:
    table = (ROOT / "ops/demo/ATTRIBUTION.md").read_text()
    named = set(re.findall(r"^\| [\w-]+/[\w-]+\.jpg \| [^|]+ \| ([^|]+) \| ", table, re.MULTILINE))
    texts = {path.stem for path in (ROOT / "ops/demo/licences").iterdir()}
    assert {name.removesuffix("-or-later") for name in named} == texts | {"public domain"}


def test_the_demo_photos_are_many_of_each_kind_small_and_readable() -> None:
    kinds = [kind for kind in PHOTOS.iterdir() if kind.is_dir()]
    assert len(kinds) >= 8
    for kind in kinds:
        assert len(list(kind.glob("*.jpg"))) >= 8
    photos = list(PHOTOS.rglob("*.jpg"))
    assert sum(path.stat().st_size for path in photos) < 5_000_000
    for path in photos:
        with Image.open(path) as image:
            image.load()
            assert max(image.size) <= 400
