"""The rooms import only what the design lets them, and importing them does no work."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "models": set[str](),
    "store": set[str](),
    "workers": {"models", "store"},
    "webui": {"workers"},
    "ops": {"models", "store", "workers", "webui"},
}
# Outside packages that a room must do without.
BANNED = {
    "models": {"celery", "kombu", "flask"},
    "store": {"celery", "kombu", "flask"},
    "workers": {"flask", "torch"},
    "webui": {"celery", "kombu", "lmdb", "torch"},
    "ops": set[str](),
}
# The only modules outside models/training that may import it.
TRAINERS = {ROOT / "ops" / "cli" / "train.py"}
QUIET_ROOMS = ("models", "store", "workers", "webui")


def _files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def _imports(tree: ast.Module, *, top_level: bool = False) -> Iterator[str]:
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield str(node.module)


def _packages(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_bytes())
    return {name.partition(".")[0] for name in _imports(tree, top_level=top_level)}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    assert _files(room)
    for path in _files(room):
        above = (_packages(path) & MAY_IMPORT.keys()) - MAY_IMPORT[room] - {room}
        assert not above, f"{path.relative_to(ROOT)} imports {above}"


@pytest.mark.parametrize("room", BANNED)
def test_a_room_does_without_the_packages_that_are_not_its_business(room: str) -> None:
    for path in _files(room):
        banned = _packages(path) & BANNED[room]
        assert not banned, f"{path.relative_to(ROOT)} imports {banned}"


def test_only_training_imports_pytorch_and_nothing_else_imports_training() -> None:
    for room in MAY_IMPORT:
        for path in _files(room):
            names = set(_imports(ast.parse(path.read_bytes())))
            training = path.parent == ROOT / "models" / "training"
            assert training or not any(each.partition(".")[0] == "torch" for each in names), path
            may_train = training or path in TRAINERS
            assert may_train or not any(each.startswith("models.training") for each in names), path


def test_importing_the_rooms_starts_nothing_and_loads_no_pytorch(tmp_path: Path) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for room in QUIET_ROOMS
        for path in _files(room)
        if path.stem != "__main__" and "torch" not in _packages(path, top_level=True)
    ]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, json.dumps(modules)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {"threads": ["MainThread"], "children": "", "torch": False, "sockets": []}
    assert not done.stderr
    assert not list(tmp_path.rglob("*")), "importing wrote files"


_IMPORT_ALL = """
import importlib, json, os, sys, threading
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
targets = []
for descriptor in os.listdir("/proc/self/fd"):
    try:
        targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    except FileNotFoundError:
        pass
print(json.dumps({
    "threads": [thread.name for thread in threading.enumerate()],
    "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
    "torch": "torch" in sys.modules,
    "sockets": [target for target in targets if target.startswith("socket:")],
}))
"""
